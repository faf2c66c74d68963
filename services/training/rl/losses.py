"""The RL loss (S2R Eq. 2-6): a clipped surrogate with ONE ratio per action, KL to the start policy in the advantage.

Which tokens make an action is the parameter `actions_B_T`: the whole response (outcome level), a segment (process
level). Shapes: B responses, T tokens, A actions of a response (padded).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Beyond this a ratio has no meaning left, and exp would overflow.
MAX_LOG_RATIO = 20.0


@dataclass(frozen=True)
class Statistics:
    """Over the actions and tokens of a micro-batch that are trained on: sums, and what to divide them by."""

    actions: float
    ratio_sum: float
    clipped: float
    tokens: float
    kl_sum: float


def sum_by_action(values_B_T: Tensor, actions_B_T: Tensor, actions: int) -> Tensor:
    """values_B_A: the sum of the values of each action's tokens; tokens of action -1 are left out."""
    sums = values_B_T.new_zeros(values_B_T.shape[0], actions + 1)
    return sums.scatter_add(1, actions_B_T + 1, values_B_T)[:, 1:]


def clipped_surrogate(
    logprobs_B_T: Tensor,
    old_logprobs_B_T: Tensor,
    actions_B_T: Tensor,
    advantages_B_A: Tensor,
    weights_B_A: Tensor,
    clip: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, ratios_B_A, clipped_B_A): loss = -sum_a w_a * min(r_a * A_a, clip(r_a, 1 - clip, 1 + clip) * A_a).

    r_a = pi(a) / pi_old(a), the product over the action's tokens. To be minimised: where the ratio is 1 its gradient is
    the policy gradient -w_a * A_a * grad log pi(a). An action of weight 0 contributes exactly nothing.
    """
    log_ratios_B_A = sum_by_action(logprobs_B_T - old_logprobs_B_T, actions_B_T, weights_B_A.shape[1])
    ratios_B_A = log_ratios_B_A.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    unclipped_B_A = ratios_B_A * advantages_B_A
    bounded_B_A = ratios_B_A.clamp(1.0 - clip, 1.0 + clip) * advantages_B_A
    surrogate_B_A = torch.minimum(unclipped_B_A, bounded_B_A)
    return -(weights_B_A * surrogate_B_A).sum(), ratios_B_A.detach(), (bounded_B_A < unclipped_B_A).detach()


def kl_advantages(
    advantages_B_A: Tensor, logprobs_B_T: Tensor, reference_logprobs_B_T: Tensor, actions_B_T: Tensor, kl_beta: float
) -> Tensor:
    """advantages_B_A - kl_beta * log(pi(a) / pi_ref(a)), without gradients (S2R Eq. 2, 5).

    An action that the policy makes likelier than the start policy did has its advantage lowered.
    """
    drift_B_T = logprobs_B_T.detach() - reference_logprobs_B_T.detach()
    return advantages_B_A - kl_beta * sum_by_action(drift_B_T, actions_B_T, advantages_B_A.shape[1])


def token_kl(logprobs_B_T: Tensor, reference_logprobs_B_T: Tensor) -> Tensor:
    """kl_B_T: for the metric, the estimator exp(d) - d - 1 with d = log pi_ref - log pi; never negative, 0 when equal."""
    difference_B_T = reference_logprobs_B_T.detach() - logprobs_B_T.detach()
    return difference_B_T.exp() - difference_B_T - 1.0


def statistics(
    ratios_B_A: Tensor, clipped_B_A: Tensor, weights_B_A: Tensor, kl_B_T: Tensor, actions_B_T: Tensor
) -> Statistics:
    """What the step's metrics are made of."""
    is_trained_B_A, is_trained_B_T = weights_B_A > 0, actions_B_T >= 0
    return Statistics(
        actions=float(is_trained_B_A.sum()),
        ratio_sum=float(ratios_B_A[is_trained_B_A].sum()),
        clipped=float(clipped_B_A[is_trained_B_A].sum()),
        tokens=float(is_trained_B_T.sum()),
        kl_sum=float(kl_B_T[is_trained_B_T].sum()),
    )
