"""The RL loss: signs, one ratio an action, nothing from nothing, the policy gradient at ratio 1."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from services.training.rl.losses import clipped_surrogate, kl_advantages, sum_by_action, token_kl

ACTIONS = torch.tensor([[-1, 0, 0, 1, 1, 1], [-1, -1, 0, 0, 1, -1]])


def tensors(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random logprobs, advantages and weights for ACTIONS."""
    generator = torch.Generator().manual_seed(seed)
    logprobs = -torch.rand(2, 6, generator=generator, dtype=torch.float64) - 0.1
    advantages = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, 2, generator=generator, dtype=torch.float64)
    return logprobs, advantages, weights


def loss_and_gradient(logprobs: Tensor, old: Tensor, advantages: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logprobs.clone().requires_grad_()
    loss, _, _ = clipped_surrogate(leaf, old, ACTIONS, advantages, weights, 0.2)
    torch.autograd.backward(loss)
    assert leaf.grad is not None
    return loss.detach(), leaf.grad


@given(st.integers(0, 10_000))
def test_at_ratio_one_the_gradient_is_the_policy_gradient(seed: int) -> None:
    logprobs, advantages, weights = tensors(seed)
    _, gradient = loss_and_gradient(logprobs, logprobs, advantages, weights)
    for row in range(2):
        for token in range(6):
            action = int(ACTIONS[row, token])
            expected = 0.0 if action < 0 else -float(weights[row, action] * advantages[row, action])
            assert float(gradient[row, token]) == pytest.approx(expected)


@given(st.sampled_from([-1.0, 1.0]))
def test_a_descent_step_makes_good_actions_likelier_and_bad_ones_less_likely(advantage: float) -> None:
    logprobs, _, weights = tensors(0)
    _, gradient = loss_and_gradient(logprobs, logprobs, torch.full((2, 2), advantage, dtype=torch.float64), weights)
    moved = (-gradient * advantage)[ACTIONS >= 0]
    assert bool((moved > 0).all())


@given(st.integers(0, 10_000))
def test_zero_advantage_or_zero_weight_contributes_exactly_nothing(seed: int) -> None:
    logprobs, advantages, weights = tensors(seed)
    old = logprobs - 0.3
    for nothing in ((torch.zeros_like(advantages), weights), (advantages, torch.zeros_like(weights))):
        loss, gradient = loss_and_gradient(logprobs, old, *nothing)
        assert float(loss) == 0.0
        assert not gradient.any()


@given(st.integers(0, 10_000), st.floats(-0.05, 0.05))
def test_one_ratio_per_action(seed: int, drift: float) -> None:
    logprobs, advantages, weights = tensors(seed)
    old = logprobs - drift
    _, ratios, _ = clipped_surrogate(logprobs, old, ACTIONS, advantages, weights, 0.2)
    lengths = [[2, 3], [2, 1]]
    for row in range(2):
        for action in range(2):
            assert float(ratios[row, action]) == pytest.approx(math.exp(drift * lengths[row][action]))
    # Moving a drift from one token of an action to another changes nothing.
    shifted = old.clone()
    shifted[0, 3], shifted[0, 4] = old[0, 3] + 0.7, old[0, 4] - 0.7
    _, same, _ = clipped_surrogate(logprobs, shifted, ACTIONS, advantages, weights, 0.2)
    assert torch.allclose(same, ratios)


def test_clipping_stops_the_gradient_only_where_it_would_go_too_far() -> None:
    logprobs, _, _ = tensors(1)
    weights = torch.ones(2, 2, dtype=torch.float64)
    for advantage, drift, stopped in ((1.0, 0.5, True), (1.0, -0.5, False), (-1.0, -0.5, True), (-1.0, 0.5, False)):
        advantages = torch.full((2, 2), advantage, dtype=torch.float64)
        _, gradient = loss_and_gradient(logprobs, logprobs - drift, advantages, weights)
        assert bool((gradient[ACTIONS >= 0] == 0).all()) is stopped
        _, _, clipped = clipped_surrogate(logprobs, logprobs - drift, ACTIONS, advantages, weights, 0.2)
        assert bool(clipped.all()) is stopped


def test_kl_lowers_the_advantage_of_what_became_likelier_than_at_the_start() -> None:
    logprobs, _, _ = tensors(2)
    none = torch.zeros(2, 2, dtype=torch.float64)
    for drift in (0.1, -0.1):
        advantages = kl_advantages(none, logprobs.requires_grad_(), logprobs.detach() - drift, ACTIONS, 0.5)
        expected = torch.tensor([[2.0, 3.0], [2.0, 1.0]], dtype=torch.float64) * -0.5 * drift
        assert torch.allclose(advantages, expected)
        assert not advantages.requires_grad


@given(st.lists(st.floats(-3, 0), min_size=2, max_size=8), st.floats(-2, 2))
def test_the_kl_estimate_is_never_negative_and_zero_when_equal(values: list[float], drift: float) -> None:
    logprobs = torch.tensor([values], dtype=torch.float64)
    assert not token_kl(logprobs, logprobs).any()
    assert bool((token_kl(logprobs, logprobs - drift) >= 0).all())


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(-1, 3), min_size=5, max_size=5), min_size=1, max_size=4))
def test_sum_by_action(actions: list[list[int]]) -> None:
    values = torch.arange(len(actions) * 5, dtype=torch.float64).reshape(-1, 5)
    sums = sum_by_action(values, torch.tensor(actions), 4)
    for row, of_row in enumerate(actions):
        for action in range(4):
            assert float(sums[row, action]) == sum(float(values[row, t]) for t, a in enumerate(of_row) if a == action)
