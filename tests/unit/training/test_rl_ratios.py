"""One ratio an action: sums of log-ratios, and means for the length-normalised one."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.training.rl.ratios import log_ratios, mean_by_action, sum_by_action
from tests.unit.training.ragged import Ragged, ragged


@given(ragged(), st.booleans())
def test_log_ratios_are_those_of_a_loop(batch: Ragged, is_length_normalised: bool) -> None:
    found = log_ratios(
        batch.logprobs, batch.old, batch.actions, batch.widest, is_length_normalised=is_length_normalised
    )
    for row in range(len(batch.actions)):
        for action in range(batch.widest):
            columns = batch.tokens_of(row, action)
            total = math.fsum(float(batch.logprobs[row, c]) - float(batch.old[row, c]) for c in columns)
            expected = total / max(len(columns), 1) if is_length_normalised else total
            assert float(found[row, action]) == pytest.approx(expected, abs=1e-12)


@given(ragged(), st.integers(0, 3), st.integers(0, 3))
def test_padding_changes_no_ratio(batch: Ragged, tokens: int, actions: int) -> None:
    padded = batch.padded(tokens, actions)
    for normalised in (True, False):
        before = log_ratios(batch.logprobs, batch.old, batch.actions, batch.widest, is_length_normalised=normalised)
        after = log_ratios(padded.logprobs, padded.old, padded.actions, padded.widest, is_length_normalised=normalised)
        assert torch.allclose(after[:, : batch.widest], before, atol=1e-12)
        assert not after[:, batch.widest :].any()


def test_a_response_of_four_tokens_by_hand() -> None:
    """Log-ratios 0.1, 0.3, -0.2, 0.2 of two actions of two tokens.

    By action: 0.4 and 0.0. The whole response: their sum 0.4; length-normalised 0.4 / 4 = 0.1, the ratio e^0.1 = 1.105.
    """
    logprobs, old = torch.tensor([[-1.0, -1.0, -1.0, -1.0]]), torch.tensor([[-1.1, -1.3, -0.8, -1.2]])
    by_action = log_ratios(logprobs, old, torch.tensor([[0, 0, 1, 1]]), 2, is_length_normalised=False)
    assert by_action.tolist() == [pytest.approx([0.4, 0.0], abs=1e-6)]
    whole = torch.zeros(1, 4, dtype=torch.long)
    assert float(log_ratios(logprobs, old, whole, 1, is_length_normalised=False)) == pytest.approx(0.4)
    sequence = log_ratios(logprobs, old, whole, 1, is_length_normalised=True)
    assert float(sequence.exp()) == pytest.approx(1.10517, abs=1e-5)


def test_the_length_normalised_ratio_does_not_grow_with_the_length() -> None:
    for tokens in (1, 10, 100):
        logprobs = torch.full((1, tokens), -1.0, dtype=torch.float64)
        actions = torch.zeros(1, tokens, dtype=torch.long)
        assert float(log_ratios(logprobs, logprobs - 0.01, actions, 1, is_length_normalised=True)) == pytest.approx(
            0.01
        )


@given(st.lists(st.lists(st.integers(-1, 3), min_size=5, max_size=5), min_size=1, max_size=4))
def test_sums_and_means_by_action(actions: list[list[int]]) -> None:
    values = torch.arange(len(actions) * 5, dtype=torch.float64).reshape(-1, 5)
    sums, means = (by_action(values, torch.tensor(actions), 4) for by_action in (sum_by_action, mean_by_action))
    for row, of_row in enumerate(actions):
        for action in range(4):
            of_action = [float(values[row, t]) for t, a in enumerate(of_row) if a == action]
            assert float(sums[row, action]) == sum(of_action)
            assert float(means[row, action]) == pytest.approx(sum(of_action) / max(len(of_action), 1))
