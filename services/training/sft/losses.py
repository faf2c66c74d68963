"""The SFT loss (S2R stage 1): masked cross-entropy + beta * KL(pi || pi_ref) over the full vocabulary.

Shapes: N trained tokens, V vocabulary.
"""

from torch import Tensor
from torch.nn import functional as F


def masked_loss(
    logits_N_V: Tensor, targets_N: Tensor, reference_logits_N_V: Tensor, kl_beta: float, tokens: Tensor | float
) -> tuple[Tensor, Tensor]:
    """(loss, mean KL), both sums over the N trained tokens divided by `tokens` (of the whole batch).

    KL(pi || pi_ref) = sum_v pi(v) (log pi(v) - log pi_ref(v)): zero where both agree, never negative; gradients flow
    through pi only.
    """
    logprobs_N_V = F.log_softmax(logits_N_V.float(), dim=-1)
    reference_N_V = F.log_softmax(reference_logits_N_V.detach().float(), dim=-1)
    cross_entropy = F.nll_loss(logprobs_N_V, targets_N, reduction="sum") / tokens
    kl_N = (logprobs_N_V.exp() * (logprobs_N_V - reference_N_V)).sum(dim=-1)
    kl = kl_N.sum() / tokens
    return cross_entropy + kl_beta * kl, kl.detach()


def shifted(logits_B_T_V: Tensor, labels_B_T: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    """(logits_N_V, targets_N) of the trained tokens: position t predicts token t + 1."""
    targets_B_T = labels_B_T[:, 1:]
    trained_B_T = targets_B_T != ignored
    return logits_B_T_V[:, :-1][trained_B_T], targets_B_T[trained_B_T]
