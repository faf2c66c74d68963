"""Offline RL: the pool's own builder on one side, rows to train on the other, and a loop in between."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.pool.builders.offline_rl import SCHEMA, OfflineRlBuilder, bin_of
from services.pool.builders.scored import ScoredGroup, ScoredResponse
from services.training.failures import RunError
from services.training.policies import load
from services.training.rl.actions import UNTRAINED
from services.training.rl.offline import COLUMNS, OfflineGroups, group_order, offline_groups
from shared.contracts.generation import FinishReason
from shared.contracts.recipe import RewardLevel, RlRecipe
from shared.contracts.runs import RunFailure
from shared.contracts.snapshots import OfflineRlRecipe
from shared.contracts.verdicts import ClaimedVerdict, ScoredSegment, SegmentKind, VerdictOutcome
from tests.unit.pool.building import records
from tests.unit.training.trainers import points, rl_trainer, start_at

POLICY = UUID(int=1)
PROMPT = np.array([3, 20, 21, 4], "<i4")
outcomes_and_rewards = st.tuples(st.booleans(), st.lists(st.sampled_from([1.0, -1.0, None]), min_size=1, max_size=4))


def response(position: int, right: bool, rewards: list[float | None], *, has_tokens: bool = True) -> ScoredResponse:
    """Two characters and two tokens a segment, solve and verify in turn, and an end token."""
    segments = tuple(
        ScoredSegment(
            kind=(SegmentKind.SOLVE, SegmentKind.VERIFY)[at % 2], start=2 * at, end=2 * at + 2, reward=reward, answer="1",
            claimed=ClaimedVerdict.INCORRECT,
        )
        for at, reward in enumerate(rewards)
    )  # fmt: skip
    outcome = VerdictOutcome.CORRECT if right else VerdictOutcome.INCORRECT
    length = 2 * len(rewards)
    tokens = {
        "token_ids": np.array([*range(30 + position, 30 + position + length), 1], "<i4"),
        "logprobs": np.full(length + 1, -0.5, "<f4"),
        "token_ends": np.array([*range(1, length + 1), length], "<i4"),
    }
    arrays: Any = tokens if has_tokens else dict.fromkeys(tokens)
    return ScoredResponse(position, "x" * length, FinishReason.STOP, outcome, segments, **arrays)


def group(number: int, *responses: ScoredResponse) -> ScoredGroup:
    return ScoredGroup(f"g{number}", f"q{number}", "Why?", str(POLICY), 3, PROMPT, responses)


def group_of(number: int, drawn: list[tuple[bool, list[float | None]]]) -> ScoredGroup:
    return group(number, *(response(at, right, rewards) for at, (right, rewards) in enumerate(drawn)))


def offline(groups: list[ScoredGroup], bins: int = 10, **recipe: Any) -> OfflineGroups:
    builder = OfflineRlBuilder(OfflineRlRecipe(pass_rate_from=0, pass_rate_to=1, accuracy_bins=bins), 0)
    table = pa.Table.from_pylist(records(builder, groups), SCHEMA).select(list(COLUMNS))
    return offline_groups(table, RlRecipe(groups_per_step=len(groups), **recipe), 0, POLICY)


@given(st.lists(st.lists(outcomes_and_rewards, min_size=1, max_size=4), min_size=1, max_size=5), st.integers(1, 4))
def test_process_advantages_are_those_of_a_loop_over_accuracy_bins_and_places(drawn: Any, bins: int) -> None:
    plan = offline([group_of(*item) for item in enumerate(drawn)], bins, level=RewardLevel.PROCESS).plan(0)
    bin_by_group = [bin_of(sum(right for right, _ in of_group) / len(of_group), bins) for of_group in drawn]
    expected = []
    for of_group, at_bin in zip(drawn, bin_by_group, strict=True):
        if all(rewards == of_group[0][1] for _, rewards in of_group):
            continue
        for _, rewards in of_group:
            advantages = []
            for place, reward in enumerate(rewards):
                alike = [
                    value
                    for other, other_bin in zip(drawn, bin_by_group, strict=True)
                    if other_bin == at_bin
                    for _, others in other
                    for value in others[place : place + 1]
                    if value is not None
                ]
                advantages.append(0.0 if reward is None else reward - math.fsum(alike) / len(alike))
            if any(reward is not None for reward in rewards):
                expected.append([round(value, 12) for value in advantages])
    found = sorted(row.advantages for row in plan.rows)
    assert len(found) == len(expected)
    for advantages, of_loop in zip(found, sorted(expected), strict=True):
        assert advantages == pytest.approx(of_loop, abs=1e-6)


def test_a_response_is_compared_with_the_others_of_its_question_at_the_outcome_level() -> None:
    """Right, wrong, wrong: leave-one-out 1 - (-1) = 2 and twice -1 - 0 = -1. The group of equal outcomes is left out."""
    telling = group_of(0, [(True, [1.0, 1.0]), (False, [-1.0]), (False, [-1.0])])
    plan = offline([telling, group_of(1, [(True, [1.0]), (True, [1.0])])]).plan(0)
    assert sorted(row.advantages for row in plan.rows) == [[-1.0], [-1.0], [2.0]]
    assert plan.metrics["zero_variance_rate"] == 0.5
    assert plan.metrics["accuracy"] == 0.6
    assert plan.metrics["rows_trained"] == 3
    assert plan.metrics["advantage_std"] == pytest.approx(2**0.5)


def test_rows_hold_the_tokens_as_they_were_sampled() -> None:
    rows = offline([group_of(0, [(True, [1.0, None]), (False, [-1.0])])], level=RewardLevel.PROCESS).plan(0).rows
    row = max(rows, key=lambda row: len(row.token_ids))
    assert (row.prompt_ids, row.token_ids) == (PROMPT.tolist(), [30, 31, 32, 33, 1])
    assert row.old_logprobs == [-0.5] * 5
    assert row.actions == [0, 0, UNTRAINED, UNTRAINED, UNTRAINED]
    assert row.weights == [0.5, 0.0]


def test_only_the_first_step_has_responses_of_the_weights_in_training() -> None:
    groups = offline([group_of(0, [(True, [1.0]), (False, [-1.0])])])
    assert all(row.is_fresh for row in groups.plan(0).rows)
    assert not any(row.is_fresh for row in groups.plan(1).rows)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 30), st.integers(0, 99))
def test_no_step_has_a_group_twice_and_all_groups_have_their_turn(
    groups: int, size: int, steps: int, seed: int
) -> None:
    size = min(size, groups)
    order = group_order(groups, size, steps, seed)
    assert len(order) == steps * size
    assert all(len(set(order[at : at + size])) == size for at in range(0, len(order), size))
    epoch = groups - groups % size
    assert all(len(set(order[at : at + epoch])) == len(order[at : at + epoch]) for at in range(0, len(order), epoch))
    assert order == group_order(groups, size, steps, seed)
    assert order[: size * (steps - 1)] == group_order(groups, size, steps - 1, seed)


def test_a_step_is_always_the_same() -> None:
    drawn = [group_of(number, [(True, [1.0] * (number + 1)), (False, [-1.0])]) for number in range(6)]
    table = pa.Table.from_pylist(records(OfflineRlBuilder(OfflineRlRecipe(), 0), drawn), SCHEMA).select([*COLUMNS])
    first, again = (offline_groups(table, RlRecipe(groups_per_step=2, steps=9), 7, POLICY) for _ in range(2))
    assert [first.plan(step) for step in range(9)] == [again.plan(step) for step in reversed(range(9))][::-1]


def test_responses_without_tokens_are_left_out_and_too_few_groups_are_named() -> None:
    kept = group(0, response(0, True, [1.0]), response(1, False, [-1.0]), response(2, False, [-1.0], has_tokens=False))
    lost = group(1, response(0, True, [1.0], has_tokens=False), response(1, False, [-1.0], has_tokens=False))
    with pytest.raises(RunError, match=r"has 1 groups with tokens in its 5 rows, and a step takes 2") as failed:
        offline([kept, lost])
    assert failed.value.failure is RunFailure.NO_ROW_FITS
    assert len(offline([kept]).plan(0).rows) == 2


def test_training_makes_right_answers_likelier_than_wrong_ones(tiny_directory: Path, tmp_path: Path) -> None:
    recipe = RlRecipe(steps=8, k=2, groups_per_step=1, learning_rate=1e-2, warmup_fraction=0.0, kl_beta=0.0, clip=0.9)
    loaded = load(start_at(tiny_directory), None, bf16=False, kl=False, seed=0)
    right, wrong = response(0, True, [1.0, 1.0]), response(5, False, [-1.0])
    before = [logprobs_of(loaded.model, item) for item in (right, wrong)]
    sampled = [replace(item, logprobs=logprobs) for item, logprobs in zip((right, wrong), before, strict=True)]
    trainer = rl_trainer(loaded, recipe, [], tmp_path)
    trainer.plan_step = offline([group(0, *sampled)], **recipe.model_dump(exclude={"groups_per_step"})).plan
    trainer.train()
    assert logprobs_of(loaded.model, right).sum() > before[0].sum()
    assert logprobs_of(loaded.model, wrong).sum() < before[1].sum()
    first = points(trainer)[0]
    assert first["accuracy"] == 0.5
    assert first["ratio_mean"] == pytest.approx(1.0, abs=1e-4)


def logprobs_of(model: Any, item: ScoredResponse) -> NDArray[np.float32]:
    assert item.token_ids is not None
    tokens = torch.tensor([*PROMPT.tolist(), *item.token_ids.tolist()])
    with torch.no_grad():
        logprobs = model(tokens[None]).logits[0].log_softmax(-1)
    found: NDArray[np.float32] = logprobs[:-1].gather(1, tokens[1:, None])[len(PROMPT) - 1 :, 0].numpy().astype("<f4")
    return found
