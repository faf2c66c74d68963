"""The optimisers a recipe can name beside the Trainer's own AdamW.

Muon (Jordan et al. 2024) orthogonalises the momentum of each hidden weight matrix; the rest (embeddings, output head, norms) goes
on with AdamW. With Moonlight's factor 0.2 * sqrt(max(out, in)) (arXiv 2502.16982) one learning rate fits both.
"""

import torch
from pytorch_optimizer import Muon
from torch import nn


def muon(model: nn.Module, learning_rate: float, weight_decay: float, adam_betas: tuple[float, float]) -> Muon:
    """Muon for the matrices inside the blocks, AdamW for the other trained parameters; no decay for vectors."""
    outside = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    outside |= {id(parameter) for parameter in _output_head(model)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2 and id(parameter) not in outside]
    embeddings = [parameter for parameter in trained if parameter.ndim >= 2 and id(parameter) in outside]
    vectors = [parameter for parameter in trained if parameter.ndim < 2]
    adamw = {"lr": learning_rate, "betas": adam_betas, "eps": 1e-8, "use_muon": False}
    groups = [
        {
            "params": matrices,
            "lr": learning_rate,
            "weight_decay": weight_decay,
            "use_adjusted_lr": True,
            "use_muon": True,
        },
        {"params": embeddings, "weight_decay": weight_decay, **adamw},
        {"params": vectors, "weight_decay": 0.0, **adamw},
    ]
    return Muon([group for group in groups if group["params"]])


def _output_head(model: nn.Module) -> list[torch.nn.Parameter]:
    find = getattr(model, "get_output_embeddings", None)
    head = find() if find is not None else None
    return list(head.parameters()) if head is not None else []
