"""The RL loss (S2R Eq. 2-6): a clipped surrogate with one ratio per action, KL to the start policy in the advantage.

pi_old is the engine's: the log-probabilities that it gave with the tokens, under the version that sampled them. So the ratio is the
importance correction for everything that differs between sampling and training: stale versions and the engine's other
arithmetic. It is truncated on both sides: PPO's clip bounds what a good action can gain, the dual clip what a bad one can
cost. Shapes: B responses, T tokens, A actions of a response (padded).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from services.training.rl.ratios import sum_by_action
from shared.contracts.recipe import RatioUnit, RlRecipe

# Beyond this a ratio has no meaning left, and exp would overflow.
MAX_LOG_RATIO = 20.0


@dataclass(frozen=True)
class ClipRange:
    """The ratios that count: from 1 - low to 1 + high; beyond them up to `dual` for a bad action that became likelier."""

    low: float
    high: float
    dual: float


def clip_range(recipe: RlRecipe) -> ClipRange:
    """What the recipe says; without a word about it a sequence has the range that GSPO's authors advise."""
    low, high = (3e-4, 4e-4) if recipe.ratio is RatioUnit.SEQUENCE else (recipe.clip, recipe.clip)
    return ClipRange(recipe.clip_low or low, recipe.clip_high or high, recipe.dual_clip)


@dataclass(frozen=True)
class Surrogate:
    """The loss, and per action (B, A) its ratio and whether a bound took its gradient away: the clip, or the dual clip."""

    loss: Tensor
    ratios: Tensor
    clipped: Tensor
    dual_clipped: Tensor


def clipped_surrogate(
    log_ratios_B_A: Tensor, advantages_B_A: Tensor, weights_B_A: Tensor, clip: ClipRange
) -> Surrogate:
    """loss = -sum_a w_a * s_a with s_a = min(r_a * A_a, clip(r_a, 1 - low, 1 + high) * A_a), and s_a >= dual * A_a for A_a < 0.

    r_a = pi(a) / pi_old(a). To be minimised: where the ratio is 1 its gradient is the policy gradient
    -w_a * A_a * grad log pi(a). The last bound is dual-clip PPO's (arXiv 1912.09729, Eq. 5): without it a bad action whose
    ratio explodes has a loss and a gradient without limit. An action of weight 0 contributes exactly nothing.
    """
    ratios_B_A = log_ratios_B_A.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    unclipped_B_A = ratios_B_A * advantages_B_A
    bounded_B_A = ratios_B_A.clamp(1.0 - clip.low, 1.0 + clip.high) * advantages_B_A
    dual_clipped_B_A = (advantages_B_A < 0) & (ratios_B_A > clip.dual)
    surrogate_B_A = torch.where(dual_clipped_B_A, clip.dual * advantages_B_A, torch.minimum(unclipped_B_A, bounded_B_A))
    clipped_B_A = (bounded_B_A < unclipped_B_A).detach()
    return Surrogate(-(weights_B_A * surrogate_B_A).sum(), ratios_B_A.detach(), clipped_B_A, dual_clipped_B_A)


def kl_advantages(
    advantages_B_A: Tensor, logprobs_B_T: Tensor, reference_logprobs_B_T: Tensor, actions_B_T: Tensor, kl_beta: float
) -> Tensor:
    """advantages_B_A - kl_beta * log(pi(a) / pi_ref(a)), without gradients (S2R Eq. 2, 5).

    An action that the policy makes likelier than the start policy did has its advantage lowered.
    """
    drift_B_T = logprobs_B_T.detach() - reference_logprobs_B_T.detach()
    return advantages_B_A - kl_beta * sum_by_action(drift_B_T, actions_B_T, advantages_B_A.shape[1])


def kl_estimate(logprobs_T: Tensor, other_logprobs_T: Tensor) -> Tensor:
    """Per token that pi sampled, an estimate of KL(pi || other): exp(d) - d - 1 with d = log other - log pi.

    Never negative, 0 when equal; without gradients.
    """
    difference_T = other_logprobs_T.detach() - logprobs_T.detach()
    return difference_T.exp() - difference_T - 1.0
