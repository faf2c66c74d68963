"""What a step's loss says about itself: ratios, bounds, KL, and how far the trainer's log-probabilities are from the engine's.

Shapes: B responses, T tokens, A actions of a response (padded), N trained actions, M trained tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from services.training.rl.losses import Surrogate, kl_estimate


@dataclass(frozen=True)
class LogProbs:
    """Of the tokens of a micro-batch, each (B, T): the trained policy's, the sampling engine's, the start policy's."""

    trained: Tensor
    engine: Tensor
    reference: Tensor | None


@dataclass(frozen=True)
class Statistics:
    """Of one micro-batch, only what is trained on: per action (N), then per token (M; `is_fresh` says which are fresh)."""

    ratios: Tensor
    clipped: Tensor
    dual_clipped: Tensor
    trained: Tensor
    engine: Tensor
    reference: Tensor | None
    is_fresh: Tensor

    def on_cpu(self) -> "Statistics":
        """Where the statistics of all ranks can be put together."""
        moved: dict[str, Any] = {name: None if value is None else value.cpu() for name, value in vars(self).items()}
        return replace(self, **moved)


def statistics(
    surrogate: Surrogate, weights_B_A: Tensor, logprobs: LogProbs, actions_B_T: Tensor, is_fresh_B: Tensor
) -> Statistics:
    """`is_fresh_B`: responses that the engine sampled with the weights that the trainer has now."""
    is_action_B_A, is_trained_B_T = weights_B_A > 0, actions_B_T >= 0
    return Statistics(
        ratios=surrogate.ratios[is_action_B_A],
        clipped=surrogate.clipped[is_action_B_A].float(),
        dual_clipped=surrogate.dual_clipped[is_action_B_A].float(),
        trained=logprobs.trained.detach()[is_trained_B_T],
        engine=logprobs.engine[is_trained_B_T],
        reference=None if logprobs.reference is None else logprobs.reference[is_trained_B_T],
        is_fresh=is_fresh_B[:, None].expand_as(actions_B_T)[is_trained_B_T],
    )


def step_metrics(micro_batches: Sequence[Statistics]) -> dict[str, float]:
    """The logged figures of a step; one that nothing was seen for is missing.

    `negative_logprob_mean` is of the sampled tokens: an estimate of the policy's entropy as far as it sampled them itself.
    `engine_logprob_gap` (mean |difference|) and `engine_kl` (KL(engine || trainer)) are of fresh responses, where any
    difference comes from the engine's other arithmetic.
    """
    if not micro_batches:
        return {}
    ratios_N, trained_M, engine_M, is_fresh_M = (
        torch.cat([getattr(item, name) for item in micro_batches])
        for name in ("ratios", "trained", "engine", "is_fresh")
    )
    figures: dict[str, Tensor] = {}
    if len(ratios_N):
        figures |= {
            "ratio_mean": ratios_N.mean(),
            "ratio_std": ratios_N.std(correction=0),
            "ratio_max": ratios_N.max(),
            "clip_fraction": torch.cat([item.clipped for item in micro_batches]).mean(),
            "dual_clip_fraction": torch.cat([item.dual_clipped for item in micro_batches]).mean(),
        }
    if len(trained_M):
        figures["negative_logprob_mean"] = -trained_M.mean()
        reference = [item.reference for item in micro_batches if item.reference is not None]
        if reference:
            figures["kl"] = kl_estimate(trained_M, torch.cat(reference)).mean()
    if is_fresh_M.any():
        trained_F, engine_F = trained_M[is_fresh_M], engine_M[is_fresh_M]
        figures["engine_logprob_gap"] = (trained_F - engine_F).abs().mean()
        figures["engine_kl"] = kl_estimate(engine_F, trained_F).mean()
    return {name: float(figure) for name, figure in figures.items()}
