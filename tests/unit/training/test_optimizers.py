"""Which parameters Muon orthogonalises, and how far one step goes."""

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from services.training.optimizers import muon


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=request.param,
    )
    return LlamaForCausalLM(config)


def test_every_trained_parameter_is_in_exactly_one_group_and_only_block_matrices_are_muons(
    model: LlamaForCausalLM,
) -> None:
    model.model.norm.weight.requires_grad_(requires_grad=False)
    optimizer = muon(model, 1e-3, 0.1, (0.9, 0.98))
    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    grouped = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(names.values())
    orthogonalised = [
        names[id(parameter)] for group in optimizer.param_groups if group["use_muon"] for parameter in group["params"]
    ]
    assert len(orthogonalised) == 2 * 7
    assert all(".layers." in name and "norm" not in name for name in orthogonalised)
    assert all(not group["weight_decay"] for group in optimizer.param_groups if group["params"][0].ndim < 2)


def test_a_step_moves_a_matrix_by_about_0_2_of_the_learning_rate_a_weight(model: LlamaForCausalLM) -> None:
    """Moonlight's factor makes the root mean square of an update 0.2 * learning rate, AdamW's usual size.

    Five Newton-Schulz steps leave singular values between about 0.7 and 1.2, hence the tolerance.
    """
    weight = model.model.layers[0].mlp.up_proj.weight
    before = weight.detach().clone()
    optimizer = muon(model, 1e-3, 0.0, (0.9, 0.98))
    model(input_ids=torch.arange(32)[None], labels=torch.arange(32)[None]).loss.backward()
    optimizer.step()
    moved = (weight.detach() - before).square().mean().sqrt().item()
    assert math.isclose(moved, 0.2 * 1e-3, rel_tol=0.35)
