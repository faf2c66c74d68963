"""Leased groups to rows of tokens, actions and advantages. Stored token ids are used as they are; no text is tokenised.

Left out of baseline and loss: unscored responses, responses without tokens, and whole groups of equal rewards.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from services.training.rl.actions import UNTRAINED, cut_actions, ratio_unit, token_segments
from services.training.rl.advantages import (
    BatchBaseline,
    Reward,
    RunningBaseline,
    group_relative,
    has_variance,
    leave_one_out,
)
from services.training.rl.metrics import batch_metrics
from services.training.rl.rewards import action_rewards, outcome_reward
from shared.contracts.recipe import AdvantageEstimator, RewardLevel, RlRecipe
from shared.contracts.verdicts import Verdict
from shared.packed import PackedGroup, PackedResponse, float32s, int32s


@dataclass(frozen=True)
class Row:
    """One response to train on.

    `actions` has one entry per response token: its action, or UNTRAINED. `advantages` and `weights` have one per
    action; the weights of a batch sum to 1 (S2R: mean over responses of the mean over a response's actions). `staleness`:
    versions between the policy that sampled it and the trainer's newest.
    """

    prompt_ids: list[int]
    token_ids: list[int]
    old_logprobs: list[float]
    actions: list[int]
    advantages: list[float]
    weights: list[float]
    staleness: int


@dataclass
class Plan:
    """What one step trains on, and what was left out and why."""

    rows: list[Row] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Scored:
    """A scored response with tokens, and what it earned: one reward (outcome level) or one per segment."""

    prompt_ids: list[int]
    response: PackedResponse
    rewards: tuple[Reward, ...]
    staleness: int


def plan_batch(
    groups: Sequence[PackedGroup], recipe: RlRecipe, baseline: BatchBaseline | RunningBaseline, policy_version: int
) -> Plan:
    """Rows and metrics of a leased batch. `policy_version` is the trainer's newest, for the staleness metrics."""
    scored_groups = [_scored(group, recipe.level, policy_version) for group in groups]
    trained = [group for group in scored_groups if has_variance([scored.rewards for scored in group])]
    if recipe.level is RewardLevel.OUTCOME:
        advantages = [[advantage] for group in trained for advantage in _group_advantages(group, recipe)]
    else:
        advantages = baseline.advantages([scored.rewards for group in trained for scored in group])
    responses = [scored for group in trained for scored in group]
    drafts = [_draft(scored, of_units, recipe) for scored, of_units in zip(responses, advantages, strict=True)]
    rows = [draft for draft in drafts if any(draft.weights)]
    rows = [_weighted(row, len(rows)) for row in rows]
    rewards = [reward for group in scored_groups for scored in group for reward in scored.rewards]
    telling = [value for row in rows for value, weight in zip(row.advantages, row.weights, strict=True) if weight]
    counts = {
        "zero_variance_rate": 1.0 - len(trained) / max(len(groups), 1),
        "rows_trained": float(len(rows)),
    }
    return Plan(rows, batch_metrics(groups, rewards, telling, policy_version) | counts)


def _scored(group: PackedGroup, level: RewardLevel, policy_version: int) -> list[_Scored]:
    staleness = policy_version - group.policy_version
    prompt_ids = int32s(group.prompt_token_ids).tolist()
    return [
        _Scored(prompt_ids, response, _rewards(response.verdict, level), staleness)
        for response in group.responses
        if prompt_ids and response.token_ids and outcome_reward(response.verdict) is not None
    ]


def _rewards(verdict: Verdict, level: RewardLevel) -> tuple[Reward, ...]:
    return (outcome_reward(verdict),) if level is RewardLevel.OUTCOME else tuple(action_rewards(verdict))


def _group_advantages(group: Sequence[_Scored], recipe: RlRecipe) -> list[Reward]:
    rewards_G = [_outcome(scored) for scored in group]
    if recipe.advantage is AdvantageEstimator.GRPO:
        return [*group_relative(rewards_G, standardise=recipe.standardise)]
    return [*leave_one_out(rewards_G)]


def _outcome(scored: _Scored) -> float:
    reward = scored.rewards[0]
    if reward is None:
        raise ValueError("an unscored response has no place in a baseline")
    return reward


def _draft(scored: _Scored, advantages: Sequence[Reward], recipe: RlRecipe) -> Row:
    """A row whose weights are 1 for the actions that are trained on: those with an advantage and a token."""
    segments_T = token_segments(scored.response)
    actions, advantages_A = cut_actions(segments_T, advantages, recipe.level, ratio_unit(recipe))
    present = set(actions)
    is_trained = [advantage is not None and index in present for index, advantage in enumerate(advantages_A)]
    return Row(
        scored.prompt_ids,
        int32s(scored.response.token_ids).tolist(),
        float32s(scored.response.logprobs).tolist(),
        [action if action != UNTRAINED and is_trained[action] else UNTRAINED for action in actions],
        [advantage or 0.0 for advantage in advantages_A],
        [float(trained) for trained in is_trained],
        scored.staleness,
    )


def _weighted(row: Row, rows: int) -> Row:
    share = 1.0 / (rows * sum(row.weights))
    return replace(row, weights=[weight * share for weight in row.weights])
