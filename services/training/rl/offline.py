"""Offline RL (S2R): whole groups of an `offline-rl` snapshot, in a seeded order known for the whole run, instead of leased ones.

At the outcome level a question's responses are compared with each other; at the process level a segment with the mean of its place
in trajectories of the same accuracy bin, which the snapshot holds. A step's plan depends on nothing but its number, so a resumed
run takes the same ones. Left out: responses whose tokens the pool had let go, and, as online, groups of equal rewards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow
import pyarrow.compute as pc

from services.training.failures import RunError
from services.training.rl.actions import token_segments
from services.training.rl.advantages import Reward, has_variance
from services.training.rl.rows import Plan, Sampled, outcome_advantages, weighted_rows
from shared.contracts.recipe import RewardLevel, RlRecipe
from shared.contracts.runs import RunFailure
from shared.contracts.verdicts import ScoredSegment

_TOKENS = ("prompt_token_ids", "token_ids", "logprobs", "token_ends")
COLUMNS = ("group_id", "policy_id", "reward", "segments", "rounds", *_TOKENS)


@dataclass(frozen=True)
class OfflineGroups:
    """`groups` has the row numbers of each group; `order` the groups of all steps, one step after another."""

    table: pyarrow.Table
    groups: list[list[int]]
    order: list[int]
    recipe: RlRecipe
    start_policy_id: UUID

    def plan(self, step: int) -> Plan:
        """Rows and metrics of a step."""
        size = self.recipe.groups_per_step
        numbers = self.order[step * size : (step + 1) * size]
        groups = [self.table.take(self.groups[number]).to_pylist() for number in numbers]
        trained = [group for group in groups if has_variance([_rewards(row, self.recipe.level) for row in group])]
        advantages = [item for group in trained for item in group_advantages(group, self.recipe)]
        is_start = step == 0
        responses = [
            _sampled(row, is_fresh=is_start and row["policy_id"] == str(self.start_policy_id))
            for group in trained
            for row in group
        ]
        plan = Plan(weighted_rows(responses, advantages, self.recipe))
        plan.metrics = _metrics(groups, plan, self.recipe.level) | {
            "zero_variance_rate": 1.0 - len(trained) / size,
            "rows_trained": float(len(plan.rows)),
        }
        return plan


def offline_groups(table: pyarrow.Table, recipe: RlRecipe, seed: int, start_policy_id: UUID) -> OfflineGroups:
    """The groups of a snapshot's COLUMNS that have tokens. Raises: RunError `no_row_fits` when they do not fill a step."""
    groups: dict[str, list[int]] = {}
    for number, (group_id, has_tokens) in enumerate(
        zip(table["group_id"].to_pylist(), _has_tokens(table), strict=True)
    ):
        if has_tokens:
            groups.setdefault(group_id, []).append(number)
    if len(groups) < recipe.groups_per_step:
        raise RunError(
            RunFailure.NO_ROW_FITS,
            f"The snapshot has {len(groups)} groups with tokens in its {table.num_rows} rows, and a step takes {recipe.groups_per_step} "
            "(groups_per_step). Build it from more or newer groups: the pool lets tokens go after a while.",
        )
    order = group_order(len(groups), recipe.groups_per_step, recipe.steps, seed)
    return OfflineGroups(table, list(groups.values()), order, recipe, start_policy_id)


def group_order(groups: int, groups_per_step: int, steps: int, seed: int) -> list[int]:
    """Group numbers for `steps` steps, one after another: seeded permutations, cut to whole steps, so that no step has a group twice."""
    generator = np.random.default_rng(seed)
    order: list[int] = []
    while len(order) < steps * groups_per_step:
        order.extend(generator.permutation(groups)[: groups - groups % groups_per_step].tolist())
    return order[: steps * groups_per_step]


def group_advantages(group: Sequence[dict[str, Any]], recipe: RlRecipe) -> list[list[Reward]]:
    """Of each response of a group: one advantage (outcome level), or reward minus baseline of every segment that has them."""
    if recipe.level is RewardLevel.OUTCOME:
        return outcome_advantages([row["reward"] for row in group], recipe)
    return [[_advantage(segment) for segment in row["segments"]] or [None] for row in group]


def _advantage(segment: dict[str, Any]) -> Reward:
    return None if segment["reward"] is None else float(segment["reward"]) - float(segment["baseline"])


def _rewards(row: dict[str, Any], level: RewardLevel) -> tuple[Reward, ...]:
    return (row["reward"],) if level is RewardLevel.OUTCOME else tuple(item["reward"] for item in row["segments"])


def _sampled(row: dict[str, Any], *, is_fresh: bool) -> Sampled:
    segments = [ScoredSegment(kind=item["kind"], start=item["start"], end=item["end"]) for item in row["segments"]]
    return Sampled(
        row["prompt_token_ids"],
        row["token_ids"],
        row["logprobs"],
        token_segments(row["token_ends"], segments),
        is_fresh,
    )


def _has_tokens(table: pyarrow.Table) -> list[bool]:
    lengths = [pc.fill_null(pc.list_value_length(table[name]), 0).to_pylist() for name in _TOKENS]
    return [all(of_row) for of_row in zip(*lengths, strict=True)]


def _metrics(groups: Sequence[Sequence[dict[str, Any]]], plan: Plan, level: RewardLevel) -> dict[str, float]:
    rows = [row for group in groups for row in group]
    rewards = [reward for row in rows for reward in _rewards(row, level) if reward is not None]
    telling = [advantage for advantage in plan.telling_advantages() if advantage]
    means = {
        "accuracy": [float(row["reward"] > 0) for row in rows],
        "reward_mean": rewards,
        "response_tokens": [float(len(row["token_ids"])) for row in rows],
        "rounds_mean": [float(row["rounds"]) for row in rows],
    }
    spreads = {"reward_std": rewards, "advantage_std": telling}
    return {name: fmean(values) for name, values in means.items() if values} | {
        name: pstdev(values) for name, values in spreads.items() if values
    }
