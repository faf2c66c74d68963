"""Offline RL: whole groups by pass rate, baselines by accuracy bin and place, tokens where there are some."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pool.builders.offline_rl import OfflineRlBuilder, bin_of
from services.pool.builders.scored import ScoredGroup, ScoredResponse
from shared.contracts.generation import FinishReason
from shared.contracts.snapshots import OfflineRlRecipe
from shared.contracts.verdicts import ClaimedVerdict, ScoredSegment, SegmentKind, VerdictOutcome
from tests.unit.pool.building import records

CORRECT, INCORRECT, UNSCORED = VerdictOutcome
EVERYTHING = OfflineRlRecipe(pass_rate_from=0, pass_rate_to=1)


def response(position: int, outcome: VerdictOutcome, rewards: tuple[float | None, ...] = (), **tokens: Any) -> Any:
    """A response of as many segments as it has rewards: solve, verify, solve, …; a verify says what is true."""
    segments = []
    for at, reward in enumerate(rewards):
        kind = (SegmentKind.SOLVE, SegmentKind.VERIFY)[at % 2]
        right = (rewards[at - 1] or 0) > 0
        claimed = (ClaimedVerdict.CORRECT if right else ClaimedVerdict.INCORRECT) if at % 2 else None
        segments.append(ScoredSegment(kind=kind, start=at, end=at + 1, reward=reward, claimed=claimed, answer="1"))
    arrays = dict.fromkeys(("token_ids", "logprobs", "token_ends")) | tokens
    return ScoredResponse(position, "x" * len(rewards), FinishReason.STOP, outcome, tuple(segments), **arrays)


def group(number: int, *responses: Any) -> ScoredGroup:
    """A group of a question of its own."""
    return ScoredGroup(f"g{number}", f"q{number}", "Why?", "policy", 3, None, responses)


def test_groups_are_taken_by_pass_rate_and_whole():
    groups = [
        group(
            right,
            *(response(at, CORRECT if at < right else INCORRECT, (1.0 if at < right else -1.0,)) for at in range(8)),
        )
        for right in range(9)
    ]
    builder = OfflineRlBuilder(OfflineRlRecipe(), 0)
    rows = records(builder, groups)
    assert [row["group_id"] for row in rows] == [f"g{right}" for right in range(1, 6) for _ in range(8)]
    assert [row["position"] for row in rows] == [*range(8)] * 5
    assert {row["pass_rate"] for row in rows} == {right / 8 for right in range(1, 6)}
    assert [row["reward"] for row in rows[:8]] == [1.0, *[-1.0] * 7]
    assert dict(builder.dropped) == {"pass_rate": 4}
    limited = OfflineRlBuilder(OfflineRlRecipe(max_groups=2), 0)
    kept = [row["group_id"] for row in records(limited, groups)]
    assert (len(kept), len(set(kept)), limited.dropped["max_groups"]) == (16, 2, 3)


def test_baselines_are_means_by_accuracy_bin_and_place():
    groups = [
        group(0, response(0, CORRECT, (1.0, 1.0)), response(1, INCORRECT, (-1.0, -1.0))),
        group(1, response(0, CORRECT, (-1.0, 1.0, 1.0, None)), response(1, INCORRECT, (-1.0, 1.0))),
        group(2, response(0, CORRECT, (1.0,)), response(1, UNSCORED)),
    ]
    builder = OfflineRlBuilder(EVERYTHING, 0)
    rows = records(builder, groups, items_at_once=1)
    baselines = [[segment["baseline"] for segment in row["segments"]] for row in rows]
    assert baselines == [[-0.5, 0.5], [-0.5, 0.5], [-0.5, 0.5, 1.0, None], [-0.5, 0.5], [1.0]]
    assert [segment["trained"] for segment in rows[2]["segments"]] == [True, True, True, False]
    assert [row["accuracy_bin"] for row in rows] == [5, 5, 5, 5, 9]
    assert builder.dropped["unscored"] == 1


@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from([CORRECT, INCORRECT]), st.lists(st.sampled_from([1.0, -1.0, None]), max_size=3)),
            min_size=1,
            max_size=4,
        ),
        max_size=6,
    ),
    st.integers(1, 4),
)
def test_advantages_of_a_place_in_a_bin_add_up_to_nothing(drawn: Any, at_once: int):
    groups = [
        group(number, *(response(at, outcome, tuple(rewards)) for at, (outcome, rewards) in enumerate(responses)))
        for number, responses in enumerate(drawn)
    ]
    rows = records(OfflineRlBuilder(EVERYTHING, 0), groups, at_once)
    assert rows == records(OfflineRlBuilder(EVERYTHING, 0), groups)
    sums: dict[tuple[int, int], float] = {}
    for row in rows:
        for place, segment in enumerate(row["segments"]):
            assert (segment["reward"] is None) == (segment["baseline"] is None)
            if segment["reward"] is not None:
                key = (row["accuracy_bin"], place)
                sums[key] = sums.get(key, 0.0) + segment["reward"] - segment["baseline"]
    assert all(total == pytest.approx(0, abs=1e-5) for total in sums.values())


def test_a_segment_has_the_reward_that_it_has_online():
    """A check without a verdict, and an attempt without an answer, are no success; what the verifier could not judge has no reward."""
    claims = (ClaimedVerdict.CORRECT, ClaimedVerdict.UNVERIFIABLE, None)
    judged, doubtful, silent = (
        replace(
            response(at, CORRECT, (1.0, None)),
            segments=(
                ScoredSegment(kind=SegmentKind.SOLVE, start=0, end=1, answer="1", reward=1.0),
                ScoredSegment(kind=SegmentKind.VERIFY, start=1, end=2, claimed=claimed),
            ),
        )
        for at, claimed in enumerate(claims)
    )
    unanswered = ScoredSegment(kind=SegmentKind.SOLVE, start=0, end=1)
    observed = ScoredSegment(kind=SegmentKind.OBSERVE, start=1, end=2)
    told = replace(response(3, INCORRECT, (None, None)), segments=(unanswered, observed))
    rows = records(OfflineRlBuilder(EVERYTHING, 0), [group(0, judged, doubtful, silent, told, response(4, INCORRECT))])
    segments = [[(segment["reward"], segment["trained"]) for segment in row["segments"]] for row in rows]
    right, wrong, unknown = (1.0, True), (-1.0, True), (None, False)
    assert segments == [[right, unknown], [right, wrong], [right, wrong], [wrong, unknown], [wrong]]


def test_a_trajectory_that_goes_on_after_the_end_is_left_out():
    ended, went_on = response(0, CORRECT, (1.0, 1.0)), response(1, INCORRECT, (1.0, 1.0, -1.0, 1.0))
    builder = OfflineRlBuilder(EVERYTHING, 0)
    assert [row["position"] for row in records(builder, [group(0, ended, went_on)])] == [0]
    assert dict(builder.dropped) == {"goes_on_after_the_end": 1}


def test_tokens_are_there_or_null():
    tokens = {
        "token_ids": np.array([5, 6], "<i4"),
        "logprobs": np.array([-0.5, -0.25], "<f4"),
        "token_ends": np.array([1, 2], "<i4"),
    }
    rows = records(
        OfflineRlBuilder(EVERYTHING, 0),
        [group(0, response(0, CORRECT, (1.0, 1.0), **tokens), response(1, INCORRECT, (-1.0,)))],
    )
    assert (rows[0]["token_ids"], rows[0]["logprobs"], rows[0]["token_ends"]) == ([5, 6], [-0.5, -0.25], [1, 2])
    assert (rows[1]["token_ids"], rows[1]["logprobs"], rows[1]["prompt_token_ids"]) == (None, None, None)
    assert rows[0]["policy_version"] == 3


@given(st.integers(0, 8), st.integers(1, 20))
def test_bins_are_equally_wide_and_hold_everything(right: int, bins: int):
    assert bin_of(right / 8, bins) == min(right * bins // 8, bins - 1)
