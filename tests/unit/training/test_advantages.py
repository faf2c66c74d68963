"""Rewards to advantages: leave-one-out, reward contexts, and nothing from nothing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.training.rl.advantages import BatchBaseline, RunningBaseline, group_relative, has_variance, leave_one_out

rewards = st.floats(-10, 10, allow_nan=False)
signs = st.sampled_from([-1.0, 1.0])
trajectories = st.lists(st.lists(signs, min_size=1, max_size=6), min_size=1, max_size=12)


@given(rewards, st.integers(1, 16))
def test_equal_rewards_give_exactly_zero(reward: float, count: int) -> None:
    assert leave_one_out([reward] * count) == [0.0] * count
    assert group_relative([reward] * count, standardise=True) == [0.0] * count
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


@given(st.lists(rewards, min_size=2, max_size=16), st.booleans())
def test_group_relative_is_that_of_a_loop(values: list[float], standardise: bool) -> None:
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    found = group_relative(values, standardise=standardise)
    for value, advantage in zip(values, found, strict=True):
        assert advantage * (deviation if standardise else 1.0) == pytest.approx(value - mean, abs=1e-9)
    assert math.fsum(found) == pytest.approx(0.0, abs=1e-7)


@given(st.lists(rewards, min_size=2, max_size=16), st.sampled_from([0.5, 2.0, 8.0]))
def test_standardised_advantages_do_not_depend_on_the_scale(values: list[float], scale: float) -> None:
    scaled = group_relative([value * scale for value in values], standardise=True)
    assert scaled == pytest.approx(group_relative(values, standardise=True), abs=1e-6)


def test_one_right_answer_in_four_group_relative() -> None:
    """Mean -1/2; squared differences 9/4 and three times 1/4, their sum 3 over 3: a deviation of 1."""
    assert group_relative([1.0, -1.0, -1.0, -1.0], standardise=True) == pytest.approx([1.5, -0.5, -0.5, -0.5])


def test_a_lone_response_has_no_advantage() -> None:
    assert leave_one_out([1.0]) == group_relative([1.0], standardise=True) == [0.0]


scored = st.lists(st.lists(st.sampled_from([-1.0, 1.0, 0.5, None]), min_size=1, max_size=5), min_size=1, max_size=8)


@given(scored)
def test_batch_baseline_is_that_of_a_loop(rewards_B_A: list[list[float | None]]) -> None:
    found = BatchBaseline().advantages(rewards_B_A)
    for row, rewards_A in enumerate(rewards_B_A):
        for index, reward in enumerate(rewards_A):
            alike = [
                value
                for other in rewards_B_A
                if other[:index] == rewards_A[:index]
                for value in other[index : index + 1]
                if value is not None
            ]
            expected = None if reward is None else reward - math.fsum(alike) / len(alike)
            assert found[row][index] == (None if expected is None else pytest.approx(expected, abs=1e-12))


@given(st.lists(scored, min_size=1, max_size=6), st.integers(1, 4))
def test_running_baseline_is_that_of_a_loop_over_the_earlier_batches(
    batches: list[list[list[float | None]]], minimum: int
) -> None:
    baseline = RunningBaseline(minimum=minimum)
    for number, rewards_B_A in enumerate(batches):
        found = baseline.advantages(rewards_B_A)
        earlier = [rewards_A for batch in batches[:number] for rewards_A in batch]
        for row, rewards_A in enumerate(rewards_B_A):
            for index, reward in enumerate(rewards_A):
                alike = [
                    value
                    for other in earlier
                    if other[:index] == rewards_A[:index]
                    for value in other[index : index + 1]
                    if value is not None
                ]
                mean = math.fsum(alike) / len(alike) if len(alike) >= minimum else 0.0
                expected = None if reward is None else pytest.approx(reward - mean, abs=1e-12)
                assert found[row][index] == expected


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
