"""Masked cross-entropy and full-vocabulary KL."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from services.training.sft.losses import masked_loss, shifted


@given(st.integers(0, 1000), st.floats(0, 2))
def test_loss_is_cross_entropy_plus_beta_times_kl(seed: int, beta: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, reference = torch.randn(2, 5, 7, generator=generator, dtype=torch.float32)
    targets = torch.randint(0, 7, (5,), generator=generator)
    loss, kl = masked_loss(logits, targets, reference, beta, 5.0)
    p, q = logits.softmax(-1), reference.softmax(-1)
    expected_kl = float((p * (p / q).log()).sum(-1).mean())
    assert float(kl) == pytest.approx(expected_kl, abs=1e-5)
    assert float(kl) >= 0
    assert float(loss) == pytest.approx(float(F.cross_entropy(logits, targets)) + beta * expected_kl, abs=1e-5)


def test_kl_is_zero_at_the_start_and_pulls_back_to_it() -> None:
    reference = torch.tensor([[2.0, 0.0, 0.0]])
    _, kl = masked_loss(reference.clone(), torch.tensor([0]), reference, 1.0, 1.0)
    assert float(kl) == 0.0
    logits = torch.tensor([[0.0, 0.0, 0.0]], requires_grad=True)
    with_kl, _ = masked_loss(logits, torch.tensor([1]), reference, 5.0, 1.0)
    torch.autograd.backward(with_kl)
    assert logits.grad is not None
    assert float(logits.grad[0, 0]) < 0, "descent raises what the start policy found likely"


def test_position_t_predicts_token_t_plus_one_and_the_last_token_counts() -> None:
    logits = torch.arange(8.0).reshape(1, 4, 2)
    selected, targets = shifted(logits, torch.tensor([[-100, -100, 1, 0]]), -100)
    assert targets.tolist() == [1, 0]
    assert selected.tolist() == [[2.0, 3.0], [4.0, 5.0]]
