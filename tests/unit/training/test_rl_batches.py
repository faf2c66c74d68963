"""Leased groups to rows: what is trained on, what is left out, and to which action a token belongs."""

import struct
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.training.rl.actions import UNTRAINED
from services.training.rl.advantages import BatchBaseline
from services.training.rl.batches import plan_batch
from services.training.rl.rows import Plan, Row
from services.training.rl.tensors import by_length, pad_rows, share, trim
from shared.contracts.base import pack_float32, pack_int32
from shared.contracts.generation import FinishReason
from shared.contracts.orders import ResponseIn
from shared.contracts.questions import Question, QuestionKind, QuestionState, Split
from shared.contracts.recipe import AdvantageEstimator, RatioUnit, RewardLevel, RlRecipe
from shared.contracts.verdicts import (
    ClaimedVerdict,
    ScoredSegment,
    SegmentKind,
    UnscoredReason,
    Verdict,
    VerdictOutcome,
)
from shared.packed import PackedGroup, PackedResponse, pack_response
from shared.trajectories.rewards import action_rewards

ANY = UUID(int=1)
SOLVE, VERIFY = SegmentKind.SOLVE, SegmentKind.VERIFY


def response(outcome: float | None, rewards: Sequence[float | None] = (), **changes: object) -> PackedResponse:
    """A response of two tokens a segment (of two characters each) and an end token."""
    segments = tuple(
        ScoredSegment(
            kind=(SOLVE, VERIFY)[n % 2], start=2 * n, end=2 * n + 2, reward=reward, answer="1",
            claimed=None if reward is None else ClaimedVerdict.CORRECT,
        )
        for n, reward in enumerate(rewards)
    )  # fmt: skip
    tokens = 2 * max(len(rewards), 1) + 1
    verdict = Verdict(
        outcome={1.0: VerdictOutcome.CORRECT, -1.0: VerdictOutcome.INCORRECT, None: VerdictOutcome.UNSCORED}[outcome],
        unscored_reason=UnscoredReason.TIMEOUT if outcome is None else None,
        segments=segments,
        verifier="math@1",
    )
    values = {
        "text": "x" * (tokens - 1),
        "finish_reason": FinishReason.STOP,
        "token_ids": pack_int32(range(10, 10 + tokens)),
        "logprobs": pack_float32([-0.5] * tokens),
        "token_ends": pack_int32([*range(1, tokens), tokens - 1]),
        "verdict": verdict,
    }
    return pack_response(ResponseIn(**(values | changes)))


def group(*responses: PackedResponse, version: int = 3) -> PackedGroup:
    question = Question(
        id=ANY, campaign_id=ANY, text="?", answer="1", kind=QuestionKind.NUMERIC, split=Split.TRAIN,
        domain="arithmetic", state=QuestionState.HARD, tiny=False,
    )  # fmt: skip
    return PackedGroup(
        id=ANY, order_id=ANY, question=question, policy_id=ANY, policy_version=version,
        prompt_token_ids=struct.pack("<2i", 1, 2), responses=responses, created_at=datetime(2025, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def plan(groups: Sequence[PackedGroup], level: RewardLevel = RewardLevel.OUTCOME, **recipe: Any) -> Plan:
    return plan_batch(groups, RlRecipe(level=level, **recipe), BatchBaseline(), 5, is_as_published=True)


COMBINATIONS: list[dict[str, Any]] = [
    *({"ratio": unit, "advantage": estimator} for unit in RatioUnit for estimator in AdvantageEstimator),
    *({"ratio": unit, "level": RewardLevel.PROCESS} for unit in (RatioUnit.ACTION, RatioUnit.TOKEN)),
]


@pytest.mark.parametrize("recipe", COMBINATIONS)
def test_a_group_of_equal_rewards_changes_nothing_and_is_counted(recipe: dict[str, Any]) -> None:
    mixed = group(response(1.0, [1.0, 1.0]), response(-1.0, [-1.0, 1.0]))
    equal = group(response(1.0, [1.0, 1.0]), response(1.0, [1.0, 1.0]))
    alone, together = plan([mixed], **recipe), plan([mixed, equal], **recipe)
    assert together.rows == alone.rows
    assert together.metrics["zero_variance_rate"] == 0.5
    assert plan([equal], **recipe).rows == []


def test_outcome_level_has_one_action_over_the_whole_response() -> None:
    rows = plan([group(response(1.0, [-1.0, 1.0, 1.0]), response(-1.0, [-1.0, -1.0]))]).rows
    assert [row.actions for row in rows] == [[0] * 7, [0] * 5]
    assert [row.advantages for row in rows] == [[2.0], [-2.0]]
    assert [row.weights for row in rows] == [[0.5], [0.5]]


def test_process_level_has_one_action_a_segment_and_the_end_token_belongs_to_the_last() -> None:
    rows = plan([group(response(1.0, [1.0, 1.0]), response(-1.0, [-1.0, 1.0]))], RewardLevel.PROCESS).rows
    assert rows[0].actions == [0, 0, 1, 1, 1]
    assert rows[0].advantages == [1.0, 0.0]
    assert rows[0].weights == [0.25, 0.25]


def test_unscored_responses_are_in_no_baseline_and_no_loss() -> None:
    mixed = [response(1.0), response(-1.0), response(-1.0)]
    with_unscored = plan([group(*mixed, response(None))])
    assert with_unscored.rows == plan([group(*mixed)]).rows
    assert with_unscored.metrics["unscored_rate"] == 0.25
    assert plan([group(response(1.0), response(None))]).rows == []


def test_a_response_without_token_ids_is_left_out() -> None:
    without = response(-1.0, token_ids="", logprobs="", token_ends="")
    assert plan([group(response(1.0), without)]).rows == []


def test_a_truncated_response_keeps_its_outcome() -> None:
    truncated = response(-1.0, finish_reason=FinishReason.LENGTH)
    result = plan([group(response(1.0), truncated)])
    assert len(result.rows) == 2
    assert result.metrics["truncated_rate"] == 0.5


def test_a_check_without_a_verdict_is_a_failure_only_where_segments_are_judged() -> None:
    unparsed = response(1.0, [1.0, None])
    assert action_rewards(unparsed.verdict.outcome, unparsed.verdict.segments) == [1.0, -1.0]
    assert plan([group(unparsed, response(1.0, [1.0, 1.0]))]).rows == []
    assert len(plan([group(unparsed, response(1.0, [1.0, 1.0]))], RewardLevel.PROCESS).rows) == 2


def test_what_the_verifier_could_not_judge_has_no_reward_and_no_loss() -> None:
    judged = ScoredSegment(kind=VERIFY, start=2, end=4, claimed=ClaimedVerdict.CORRECT, reward=None)
    first = response(1.0, [1.0, 1.0])
    verdict = first.verdict.model_copy(update={"segments": (first.verdict.segments[0], judged)})
    unknown = replace(first, judgement=verdict)
    assert action_rewards(verdict.outcome, verdict.segments) == [1.0, None]
    rows = plan([group(unknown, response(-1.0, [-1.0, -1.0]))], RewardLevel.PROCESS).rows
    assert rows[0].actions == [0, 0, UNTRAINED, UNTRAINED, UNTRAINED]
    assert rows[0].weights == [0.5, 0.0]


def test_what_is_compared_and_what_has_a_ratio_by_hand() -> None:
    """Two responses of a question: right with segments (wrong, right), five tokens; wrong with one segment, three tokens.

    leave_one_out: 1 - (-1) = 2 and -2. grpo: mean 0, deviation sqrt(2), so 1 / sqrt(2) and -1 / sqrt(2); without the
    deviation 1 and -1. By token every token of a response has its advantage, and half the weight shared out.
    """
    groups = [group(response(1.0, [-1.0, 1.0]), response(-1.0, [-1.0]))]
    grpo = AdvantageEstimator.GRPO
    for recipe, expected in (
        ({}, [2.0, -2.0]),
        ({"advantage": grpo}, [0.5**0.5, -(0.5**0.5)]),
        ({"advantage": grpo, "standardise": False}, [1.0, -1.0]),
    ):
        for unit, counts in (("response", (1, 1)), ("sequence", (1, 1)), ("action", (2, 1)), ("token", (5, 3))):
            rows = plan(groups, ratio=RatioUnit(unit), **recipe).rows
            for row, advantage, count in zip(rows, expected, counts, strict=True):
                assert row.advantages == pytest.approx([advantage] * count)
                assert row.weights == pytest.approx([0.5 / count] * count)
    assert plan(groups, ratio=RatioUnit.ACTION).rows[0].actions == [0, 0, 1, 1, 1]
    assert plan(groups, ratio=RatioUnit.TOKEN).rows[0].actions == [0, 1, 2, 3, 4]
    by_token = plan(groups, RewardLevel.PROCESS, ratio=RatioUnit.TOKEN).rows
    assert by_token[0].advantages == pytest.approx([0.0, 0.0, 0.0, 0.0, 0.0])


def test_a_token_of_a_segment_has_its_advantage() -> None:
    rows = plan(
        [group(response(1.0, [1.0, 1.0]), response(-1.0, [-1.0]))], RewardLevel.PROCESS, ratio=RatioUnit.TOKEN
    ).rows
    assert rows[0].advantages == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert rows[1].advantages == [-1.0, -1.0, -1.0]


@given(
    st.lists(
        st.lists(st.lists(st.sampled_from([-1.0, 1.0]), min_size=1, max_size=3), min_size=2, max_size=4),
        min_size=2,
        max_size=4,
    ),
    st.sampled_from(COMBINATIONS),
    st.randoms(),
)
def test_the_order_of_groups_changes_nothing(
    drawn: list[list[list[float]]], recipe: dict[str, Any], random: Random
) -> None:
    groups = [group(*(response(rewards[-1], rewards) for rewards in responses)) for responses in drawn]
    rows = plan(groups, **recipe).rows
    shuffled = plan(random.sample(groups, len(groups)), **recipe).rows
    assert sorted(map(repr, map(_rounded, shuffled))) == sorted(map(repr, map(_rounded, rows)))


def _rounded(row: Row) -> tuple[list[int], list[float], list[float]]:
    advantages, weights = ([round(value, 9) + 0.0 for value in values] for values in (row.advantages, row.weights))
    return row.actions, advantages, weights


@given(st.lists(st.lists(st.sampled_from([-1.0, 1.0]), min_size=1, max_size=4), min_size=2, max_size=8))
def test_weights_of_a_batch_sum_to_one_and_every_trained_token_has_an_action(rewards: list[list[float]]) -> None:
    rows = plan([group(*(response(values[0], values) for values in rewards))], RewardLevel.PROCESS).rows
    for row in rows:
        assert len(row.actions) == len(row.token_ids) == len(row.old_logprobs)
        assert set(row.actions) == set(range(len(row.advantages)))
    assert not rows or sum(weight for row in rows for weight in row.weights) == pytest.approx(1.0)


def test_spreads_and_rounds_by_hand() -> None:
    """Outcomes 1, -1, -1, -1: mean -1/2, deviation sqrt(3)/2. Leave-one-out 2 and three times -2/3: deviation 2/sqrt(3).

    Segments 2, 4, 1, 1, of which every second is a check: 1, 2, 1, 1 attempts. An unscored response and a group of equal rewards are in
    no advantage; the latter's rewards count.
    """
    mixed = [response(1.0, [1.0, 1.0]), response(-1.0, [-1.0] * 4), response(-1.0, [-1.0]), response(-1.0, [-1.0])]
    metrics = plan([group(*mixed, response(None, [None] * 4))]).metrics
    assert metrics["reward_mean"] == -0.5
    assert metrics["reward_std"] == pytest.approx(3**0.5 / 2)
    assert metrics["advantage_std"] == pytest.approx(2 / 3**0.5)
    assert metrics["rounds_mean"] == 1.25
    equal = plan([group(*mixed), group(response(1.0, [1.0]), response(1.0, [1.0]))]).metrics
    assert equal["advantage_std"] == metrics["advantage_std"]
    assert equal["reward_mean"] == 0.0
    nothing = plan([group(response(1.0), response(1.0))]).metrics
    assert nothing["reward_std"] == 0.0
    assert "advantage_std" not in nothing


def test_an_advantage_of_zero_is_not_in_the_spread() -> None:
    metrics = plan([group(response(1.0, [1.0, 1.0]), response(-1.0, [-1.0, 1.0]))], RewardLevel.PROCESS).metrics
    assert metrics["advantage_std"] == 1.0, "of 1 and -1; the checks have 0"


def test_staleness_is_a_difference_of_versions() -> None:
    metrics = plan([group(response(1.0), version=3), group(response(1.0), version=5)]).metrics
    assert (metrics["staleness_mean"], metrics["staleness_max"]) == (1.0, 2.0)


def test_a_response_is_fresh_when_the_weights_in_training_have_sampled_it() -> None:
    groups = [group(response(1.0), response(-1.0), version=version) for version in (4, 5)]
    assert [row.is_fresh for row in plan(groups).rows] == [False, False, True, True]
    trained_since = plan_batch(groups, RlRecipe(), BatchBaseline(), 5, is_as_published=False)
    assert not any(row.is_fresh for row in trained_since.rows)
    assert pad_rows(plan(groups).rows, 0, 3)["is_fresh_B"].tolist() == [False, False, True, True, False, False]


def test_padding_adds_rows_that_contribute_nothing_and_aligns_every_column() -> None:
    rows = plan([group(response(1.0), response(-1.0), response(-1.0, [-1.0, -1.0]))]).rows
    batch = pad_rows(rows, pad_token_id=0, micro_batches=2)
    assert batch["input_ids_B_T"].shape == (4, 7)
    assert batch["input_ids_B_T"][0].tolist() == [1, 2, 10, 11, 12, 0, 0]
    assert batch["actions_B_T"][0].tolist() == [-1, -1, 0, 0, 0, -1, -1]
    assert batch["old_logprobs_B_T"][0].tolist() == [0, 0, -0.5, -0.5, -0.5, 0, 0]
    assert not batch["weights_B_A"][3].any()
    assert not (batch["actions_B_T"][3] >= 0).any()
    short = trim({name: tensor[:2] for name, tensor in batch.items()})
    assert short["input_ids_B_T"].shape == (2, 5)
    assert torch.equal(pad_rows([], 0, 3)["weights_B_A"], torch.zeros(3, 1))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(1, 4), st.randoms())
def test_micro_batches_by_length_hold_the_same_rows_the_longest_first(
    lengths: list[int], micro_batches: int, random: Random
) -> None:
    rows = [
        Row([1], [number + 2] * length, [0.0] * length, [0] * length, [1.0], [1 / len(lengths)], is_fresh=False)
        for number, length in enumerate(lengths)
    ]
    whole = pad_rows(rows, 0, micro_batches)
    count = len(whole["weights_B_A"])
    shuffled = torch.tensor(random.sample(range(count), count))
    cut = [{name: tensor[part] for name, tensor in whole.items()} for part in shuffled.split(count // micro_batches)]
    ordered = by_length(cut)
    assert [len(batch["weights_B_A"]) for batch in ordered] == [count // micro_batches] * micro_batches
    together = {name: torch.cat([batch[name] for batch in ordered]) for name in whole}
    tokens = together["attention_mask_B_T"].sum(dim=1).tolist()
    assert tokens == sorted(tokens, reverse=True)
    for name, tensor in whole.items():
        assert sorted(map(repr, together[name].tolist())) == sorted(map(repr, tensor.tolist()))
    is_row = together["weights_B_A"][:, 0] > 0
    assert torch.equal(together["input_ids_B_T"].bool()[is_row], together["attention_mask_B_T"].bool()[is_row])


@given(st.lists(st.integers(1, 12), max_size=12), st.integers(1, 4))
def test_the_shares_of_the_ranks_are_the_rows_and_of_like_length(lengths: list[int], processes: int) -> None:
    rows = [Row([1], [7] * length, [0.0] * length, [0] * length, [1.0], [1.0], is_fresh=False) for length in lengths]
    shares = [share(rows, rank, processes) for rank in range(processes)]
    assert sorted(row.tokens for part in shares for row in part) == sorted(row.tokens for row in rows)
    tokens = [sum(row.tokens for row in part) for part in shares]
    assert max(tokens) - min(tokens) <= max((row.tokens for row in rows), default=0)
