"""The RL loss: against a loop, its gradient, its signs, its bounds, and nothing from nothing."""

import math
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from services.training.rl.losses import (
    MAX_LOG_RATIO,
    ClipRange,
    Surrogate,
    clip_range,
    clipped_surrogate,
    kl_advantages,
    kl_estimate,
)
from services.training.rl.ratios import log_ratios
from shared.contracts.recipe import RatioUnit, RlRecipe
from tests.unit.training.ragged import Ragged, ragged

CLIP = ClipRange(low=0.2, high=0.3, dual=3.0)
ONE = torch.ones(1, 1, dtype=torch.float64)


def surrogate_of(batch: Ragged, logprobs: Tensor, *, is_length_normalised: bool = False) -> Surrogate:
    ratios = log_ratios(logprobs, batch.old, batch.actions, batch.widest, is_length_normalised=is_length_normalised)
    return clipped_surrogate(ratios, batch.advantages, batch.weights, CLIP)


def gradient_of(batch: Ragged) -> Tensor:
    leaf = batch.logprobs.clone().requires_grad_()
    torch.autograd.backward(surrogate_of(batch, leaf).loss)
    assert leaf.grad is not None
    return leaf.grad


def expected_loss(batch: Ragged) -> float:
    """The same in plain floats, action by action, written from PPO and dual-clip PPO."""
    total = 0.0
    for row in range(len(batch.actions)):
        for action in range(batch.widest):
            drift = sum(float(batch.logprobs[row, c] - batch.old[row, c]) for c in batch.tokens_of(row, action))
            ratio, advantage = math.exp(drift), float(batch.advantages[row, action])
            clipped = min(max(ratio, 0.8), 1.3)
            gain = min(ratio * advantage, clipped * advantage)
            if advantage < 0:
                gain = max(gain, 3.0 * advantage)
            total -= float(batch.weights[row, action]) * gain
    return total


@given(ragged())
def test_the_loss_is_that_of_a_loop(batch: Ragged) -> None:
    assert float(surrogate_of(batch, batch.logprobs).loss) == pytest.approx(expected_loss(batch), abs=1e-9)


@settings(max_examples=20)
@given(ragged(), st.booleans())
def test_the_gradient_is_that_of_small_differences(batch: Ragged, is_length_normalised: bool) -> None:
    def loss(logprobs: Tensor) -> Tensor:
        return surrogate_of(batch, logprobs, is_length_normalised=is_length_normalised).loss

    assert torch.autograd.gradcheck(loss, batch.logprobs.clone().requires_grad_(), atol=1e-6)


@given(ragged())
def test_at_ratio_one_the_gradient_is_the_policy_gradient(batch: Ragged) -> None:
    on_policy = Ragged(*(*[batch.logprobs] * 3, batch.actions, batch.advantages, batch.weights))
    gradient = gradient_of(on_policy)
    for row, actions in enumerate(batch.actions.tolist()):
        for column, action in enumerate(actions):
            expected = 0.0 if action < 0 else -float(batch.weights[row, action] * batch.advantages[row, action])
            assert float(gradient[row, column]) == pytest.approx(expected)


@given(ragged(), st.randoms())
def test_order_padding_and_micro_batches_change_nothing(batch: Ragged, random: Random) -> None:
    whole, gradient = float(surrogate_of(batch, batch.logprobs).loss), gradient_of(batch)
    count, tokens = batch.actions.shape
    order = random.sample(range(count), count)
    assert torch.allclose(gradient_of(batch.rows(order)), gradient[order], atol=1e-12)
    padded = batch.padded(3, 2)
    assert float(surrogate_of(padded, padded.logprobs).loss) == pytest.approx(whole, abs=1e-12)
    assert torch.allclose(gradient_of(padded)[:, :tokens], gradient, atol=1e-12)
    assert not gradient_of(padded)[:, tokens:].any()
    parts = [batch.rows([number]) for number in range(count)]
    assert sum(float(surrogate_of(part, part.logprobs).loss) for part in parts) == pytest.approx(whole, abs=1e-12)
    assert torch.allclose(torch.cat([gradient_of(part) for part in parts]), gradient, atol=1e-12)


@given(ragged())
def test_zero_advantage_or_zero_weight_contributes_exactly_nothing(batch: Ragged) -> None:
    nothing = torch.zeros_like(batch.weights)
    for empty in (
        Ragged(batch.logprobs, batch.old, batch.reference, batch.actions, nothing, batch.weights),
        Ragged(batch.logprobs, batch.old, batch.reference, batch.actions, batch.advantages, nothing),
    ):
        assert float(surrogate_of(empty, empty.logprobs).loss) == 0.0
        assert torch.equal(gradient_of(empty), torch.zeros_like(batch.logprobs))


@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_a_descent_step_makes_good_actions_likelier_and_bad_ones_less_likely(advantage: float) -> None:
    log_ratio = torch.zeros(1, 1, requires_grad=True)
    torch.autograd.backward(clipped_surrogate(log_ratio, torch.tensor([[advantage]]), torch.ones(1, 1), CLIP).loss)
    assert log_ratio.grad is not None
    assert float(-log_ratio.grad * advantage) > 0


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "slope", "clipped", "dual_clipped"),
    [
        (1.0, 1.0, -1.0, -1.0, False, False),
        (1.0, 2.0, -1.3, 0.0, True, False),
        (1.0, 0.5, -0.5, -0.5, False, False),
        (-1.0, 0.5, 0.8, 0.0, True, False),
        (-1.0, 2.0, 2.0, 2.0, False, False),
        (-1.0, 5.0, 3.0, 0.0, False, True),
        (1.0, 5.0, -1.3, 0.0, True, False),
    ],
)
def test_bounds_by_hand(
    advantage: float, ratio: float, loss: float, slope: float, clipped: bool, dual_clipped: bool
) -> None:
    """Clip to [0.8, 1.3], dual clip at 3, weight 1. `slope` is d loss / d log ratio.

    A good action gains up to ratio 1.3, then the gradient ends; one that became unlikely is still pulled up. A bad one that became
    likelier costs its ratio, up to 3 times its advantage and no further.
    """
    log_ratio = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    found = clipped_surrogate(log_ratio, advantage * ONE, ONE, CLIP)
    torch.autograd.backward(found.loss)
    assert log_ratio.grad is not None
    assert found.loss.item() == pytest.approx(loss)
    assert log_ratio.grad.item() == pytest.approx(slope)
    assert (bool(found.clipped), bool(found.dual_clipped)) == (clipped, dual_clipped)
    assert float(found.ratios) == pytest.approx(ratio)


@given(st.floats(-1000, 1000), st.floats(-5, 5))
def test_the_loss_and_its_gradient_are_bounded_whatever_the_ratio(log_ratio: float, advantage: float) -> None:
    leaf = torch.tensor([[log_ratio]], dtype=torch.float64, requires_grad=True)
    found = clipped_surrogate(leaf, advantage * ONE, ONE, CLIP)
    torch.autograd.backward(found.loss)
    assert leaf.grad is not None
    assert abs(found.loss.item()) <= 3 * abs(advantage) + 1e-12
    assert abs(leaf.grad.item()) <= 3 * abs(advantage) + 1e-12
    assert float(found.ratios) <= math.exp(MAX_LOG_RATIO) * (1 + 1e-12)


def test_the_recipe_says_the_bounds() -> None:
    assert clip_range(RlRecipe()) == ClipRange(0.2, 0.2, 3.0)
    assert clip_range(RlRecipe(clip=0.1, dual_clip=5.0)) == ClipRange(0.1, 0.1, 5.0)
    assert clip_range(RlRecipe(clip_high=0.28)) == ClipRange(0.2, 0.28, 3.0)
    assert clip_range(RlRecipe(ratio=RatioUnit.SEQUENCE)) == ClipRange(3e-4, 4e-4, 3.0)
    assert clip_range(RlRecipe(ratio=RatioUnit.SEQUENCE, clip_low=0.01)) == ClipRange(0.01, 4e-4, 3.0)


@given(ragged(), st.floats(0, 2))
def test_the_kl_term_is_that_of_a_loop(batch: Ragged, beta: float) -> None:
    leaf = batch.logprobs.clone().requires_grad_()
    found = kl_advantages(batch.advantages, leaf, batch.reference, batch.actions, beta)
    assert not found.requires_grad
    for row in range(len(batch.actions)):
        for action in range(batch.widest):
            columns = batch.tokens_of(row, action)
            drift = math.fsum(float(batch.logprobs[row, c]) - float(batch.reference[row, c]) for c in columns)
            assert float(found[row, action]) == pytest.approx(
                float(batch.advantages[row, action]) - beta * drift, abs=1e-9
            )


def test_kl_lowers_the_advantage_of_what_became_likelier_than_at_the_start() -> None:
    """Two tokens that became likelier by 0.1 each, beta 0.5: the advantage 1 falls to 1 - 0.5 * 0.2 = 0.9."""
    logprobs, actions = torch.tensor([[-0.5, -0.5]], dtype=torch.float64), torch.zeros(1, 2, dtype=torch.long)
    assert float(kl_advantages(ONE, logprobs, logprobs - 0.1, actions, 0.5)) == pytest.approx(0.9)
    assert float(kl_advantages(ONE, logprobs, logprobs + 0.1, actions, 0.5)) == pytest.approx(1.1)


def test_the_kl_estimate_averages_to_the_kl_over_what_the_policy_samples() -> None:
    """KL of (0.8, 0.2) from (0.5, 0.5): 0.8 ln 1.6 + 0.2 ln 0.4 = 0.19274."""
    policy, other = torch.tensor([0.8, 0.2], dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert float((policy * kl_estimate(policy.log(), other.log())).sum()) == pytest.approx(0.19274, abs=1e-5)


@given(st.lists(st.floats(-3, 0), min_size=2, max_size=8), st.floats(-2, 2))
def test_the_kl_estimate_is_never_negative_and_zero_when_equal(values: list[float], drift: float) -> None:
    logprobs = torch.tensor([values], dtype=torch.float64)
    assert not kl_estimate(logprobs, logprobs).any()
    assert bool((kl_estimate(logprobs, logprobs - drift) >= 0).all())
