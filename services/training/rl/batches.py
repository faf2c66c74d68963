"""Leased groups to rows of tokens, actions and advantages. Stored token ids are used as they are; no text is tokenised.

Left out of baseline and loss: unscored responses, responses without tokens, and whole groups of equal rewards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.training.rl.actions import token_segments
from services.training.rl.advantages import BatchBaseline, Reward, RunningBaseline, has_variance
from services.training.rl.metrics import batch_metrics
from services.training.rl.rows import Plan, Sampled, outcome_advantages, weighted_rows
from shared.contracts.recipe import RewardLevel, RlRecipe
from shared.contracts.verdicts import Verdict
from shared.packed import PackedGroup, PackedResponse, float32s, int32s
from shared.trajectories.rewards import action_rewards, outcome_reward


@dataclass(frozen=True)
class _Scored:
    """A scored response with tokens, and what it earned: one reward (outcome level) or one per segment."""

    sampled: Sampled
    rewards: tuple[Reward, ...]


def plan_batch(
    groups: Sequence[PackedGroup],
    recipe: RlRecipe,
    baseline: BatchBaseline | RunningBaseline,
    policy_version: int,
    *,
    is_as_published: bool,
) -> Plan:
    """Rows and metrics of a leased batch.

    `policy_version` is the trainer's newest, for the staleness metrics; `is_as_published`: the trainer has its very weights still.
    """
    fresh_version = policy_version if is_as_published else None
    scored_groups = [_scored(group, recipe.level, fresh_version) for group in groups]
    trained = [group for group in scored_groups if has_variance([scored.rewards for scored in group])]
    if recipe.level is RewardLevel.OUTCOME:
        advantages = [item for group in trained for item in outcome_advantages([*map(_outcome, group)], recipe)]
    else:
        advantages = baseline.advantages([scored.rewards for group in trained for scored in group])
    plan = Plan(weighted_rows([scored.sampled for group in trained for scored in group], advantages, recipe))
    rewards = [reward for group in scored_groups for scored in group for reward in scored.rewards]
    plan.metrics = batch_metrics(groups, rewards, plan.telling_advantages(), policy_version) | {
        "zero_variance_rate": 1.0 - len(trained) / max(len(groups), 1),
        "rows_trained": float(len(plan.rows)),
    }
    return plan


def _scored(group: PackedGroup, level: RewardLevel, fresh_version: int | None) -> list[_Scored]:
    prompt_ids, is_fresh = int32s(group.prompt_token_ids).tolist(), group.policy_version == fresh_version
    return [
        _Scored(_sampled(prompt_ids, response, is_fresh=is_fresh), _rewards(response.verdict, level))
        for response in group.responses
        if prompt_ids and response.token_ids and outcome_reward(response.verdict.outcome) is not None
    ]


def _sampled(prompt_ids: list[int], response: PackedResponse, *, is_fresh: bool) -> Sampled:
    return Sampled(
        prompt_ids,
        int32s(response.token_ids).tolist(),
        float32s(response.logprobs).tolist(),
        token_segments(int32s(response.token_ends).tolist(), response.verdict.segments),
        is_fresh,
    )


def _rewards(verdict: Verdict, level: RewardLevel) -> tuple[Reward, ...]:
    if level is RewardLevel.OUTCOME:
        return (outcome_reward(verdict.outcome),)
    return tuple(action_rewards(verdict.outcome, verdict.segments))


def _outcome(scored: _Scored) -> float:
    reward = scored.rewards[0]
    if reward is None:
        raise ValueError("an unscored response has no place in a baseline")
    return reward
