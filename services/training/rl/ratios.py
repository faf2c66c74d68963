"""How much likelier the trained policy makes an action than the one that sampled it: ONE ratio per action.

Which tokens make an action is the parameter `actions_B_T`: the whole response, a segment, or a token. Shapes: B responses, T tokens,
A actions of a response (padded).
"""

import torch
from torch import Tensor


def sum_by_action(values_B_T: Tensor, actions_B_T: Tensor, actions: int) -> Tensor:
    """values_B_A: the sum of the values of each action's tokens; tokens of action -1 are left out."""
    sums = values_B_T.new_zeros(values_B_T.shape[0], actions + 1)
    return sums.scatter_add(1, actions_B_T + 1, values_B_T)[:, 1:]


def mean_by_action(values_B_T: Tensor, actions_B_T: Tensor, actions: int) -> Tensor:
    """values_B_A: the mean over each action's tokens; 0 where an action has none."""
    tokens_B_A = sum_by_action(torch.ones_like(values_B_T), actions_B_T, actions)
    return sum_by_action(values_B_T, actions_B_T, actions) / tokens_B_A.clamp(min=1.0)


def log_ratios(
    logprobs_B_T: Tensor, old_logprobs_B_T: Tensor, actions_B_T: Tensor, actions: int, *, is_length_normalised: bool
) -> Tensor:
    """log_ratios_B_A: log(pi(a) / pi_old(a)), the sum over the action's tokens (S2R Eq. 3, 6).

    Length-normalised it is the mean over them, so that the ratio is a geometric mean (GSPO, arXiv 2507.18071, Eq. 7).
    """
    by_action = mean_by_action if is_length_normalised else sum_by_action
    return by_action(logprobs_B_T - old_logprobs_B_T, actions_B_T, actions)
