"""Rewards to advantages: leave-one-out, reward contexts, and nothing from nothing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.training.rl.advantages import BatchBaseline, RunningBaseline, has_variance, leave_one_out

rewards = st.floats(-10, 10, allow_nan=False)
signs = st.sampled_from([-1.0, 1.0])
trajectories = st.lists(st.lists(signs, min_size=1, max_size=6), min_size=1, max_size=12)


@given(rewards, st.integers(1, 16))
def test_equal_rewards_give_exactly_zero(reward: float, count: int) -> None:
    assert leave_one_out([reward] * count) == [0.0] * count
    assert BatchBaseline().advantages([[reward, reward]] * count) == [[0.0, 0.0]] * count


@given(st.lists(rewards, min_size=2, max_size=16))
def test_leave_one_out_is_the_reward_minus_the_mean_of_the_others(values: list[float]) -> None:
    advantages = leave_one_out(values)
    for index, advantage in enumerate(advantages):
        others = values[:index] + values[index + 1 :]
        assert advantage == pytest.approx(values[index] - math.fsum(others) / len(others), abs=1e-9)
    assert math.fsum(advantages) == pytest.approx(0.0, abs=1e-8)


def test_leave_one_out_of_one_right_answer_in_four() -> None:
    assert leave_one_out([1.0, -1.0, -1.0, -1.0]) == pytest.approx([2.0, -2 / 3, -2 / 3, -2 / 3])


def test_a_lone_response_has_no_advantage() -> None:
    assert leave_one_out([1.0]) == [0.0]


@given(trajectories)
def test_batch_baseline_centres_the_actions_of_each_context(rewards_B_A: list[list[float]]) -> None:
    advantages_B_A = BatchBaseline().advantages(rewards_B_A)
    sums: dict[tuple[float, ...], float] = {}
    for rewards_A, advantages_A in zip(rewards_B_A, advantages_B_A, strict=True):
        assert len(rewards_A) == len(advantages_A)
        for index, advantage in enumerate(advantages_A):
            assert advantage is not None
            assert advantage * rewards_A[index] >= 0, "a success is never pushed down, a failure never up"
            sums[tuple(rewards_A[:index])] = sums.get(tuple(rewards_A[:index]), 0.0) + advantage
    assert all(abs(total) < 1e-9 for total in sums.values())


def test_context_is_the_earlier_rewards_of_the_same_trajectory() -> None:
    # Second actions after a right and after a wrong first action are not compared with each other.
    advantages = BatchBaseline().advantages([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    assert advantages[0][1] == 1.0
    assert advantages[1][1] == -1.0
    assert advantages[2][1] == 0.0
    assert advantages[0][0] == pytest.approx(2 / 3)


def test_an_action_without_reward_is_in_no_baseline() -> None:
    assert BatchBaseline().advantages([[1.0, None], [-1.0, 1.0], [None, 1.0]]) == [
        [1.0, None],
        [-1.0, 0.0],
        [None, 0.0],
    ]


def test_running_baseline_is_zero_until_ten_were_seen_and_lags_one_batch() -> None:
    baseline = RunningBaseline()
    assert baseline.advantages([[1.0]] * 5 + [[-1.0]] * 4) == [[1.0]] * 5 + [[-1.0]] * 4
    assert baseline.advantages([[1.0]]) == [[1.0]]
    assert baseline.advantages([[1.0]]) == [[pytest.approx(1.0 - 2 / 10)]]


@given(trajectories)
def test_running_baseline_survives_a_checkpoint(rewards_B_A: list[list[float]]) -> None:
    baseline = RunningBaseline()
    baseline.advantages(rewards_B_A)
    restored = RunningBaseline.restore(baseline.dump())
    assert restored == baseline
    assert restored.advantages(rewards_B_A) == baseline.advantages(rewards_B_A)


def test_variance() -> None:
    assert not has_variance([])
    assert not has_variance([(1.0, -1.0), (1.0, -1.0)])
    assert has_variance([(1.0, -1.0), (1.0, 1.0)])
