"""What a leased batch says about the policy that sampled it, whether or not it is trained on."""

from collections.abc import Sequence
from statistics import fmean, pstdev

from services.training.rl.advantages import Reward
from shared.contracts.generation import FinishReason
from shared.contracts.verdicts import SegmentKind, Verdict
from shared.packed import PackedGroup
from shared.trajectories.rewards import outcome_reward


def batch_metrics(
    groups: Sequence[PackedGroup], rewards: Sequence[Reward], advantages: Sequence[float], policy_version: int
) -> dict[str, float]:
    """Means and spreads; one that nothing was seen for is missing.

    `rewards`: of the scored responses (outcome level) or their segments (process level). `advantages`: of the trained actions, before
    KL; those of exactly 0 say nothing about the spread. `rounds_mean`: attempts of a scored response.
    """
    responses = [response for group in groups for response in group.responses]
    verdicts = [response.verdict for response in responses]
    outcomes = [reward for verdict in verdicts if (reward := outcome_reward(verdict.outcome)) is not None]
    staleness = [policy_version - group.policy_version for group in groups]
    known = [reward for reward in rewards if reward is not None]
    telling = [advantage for advantage in advantages if advantage]
    values: dict[str, Sequence[float]] = {
        "reward_mean": known,
        "accuracy": [float(reward > 0) for reward in outcomes],
        "verification_accuracy": [float(reward > 0) for reward in _verification_rewards(verdicts)],
        "unparsed_rate": [float(verdict.unparsed is not None) for verdict in verdicts],
        "unscored_rate": [float(outcome_reward(verdict.outcome) is None) for verdict in verdicts],
        "truncated_rate": [float(response.finish_reason is FinishReason.LENGTH) for response in responses],
        "response_tokens": [float(response.tokens) for response in responses],
        "rounds_mean": [
            float(sum(segment.kind is SegmentKind.SOLVE for segment in verdict.segments))
            for verdict in verdicts
            if outcome_reward(verdict.outcome) is not None
        ],
        "staleness_mean": [float(versions) for versions in staleness],
    }
    spreads = {"reward_std": known, "advantage_std": telling}
    return (
        {name: fmean(items) for name, items in values.items() if items}
        | {name: pstdev(items) for name, items in spreads.items() if items}
        | {"staleness_max": float(max(staleness, default=0))}
    )


def _verification_rewards(verdicts: Sequence[Verdict]) -> list[float]:
    """Of every verify segment that was judged: one without a verdict says nothing about accuracy."""
    return [
        segment.reward
        for verdict in verdicts
        for segment in verdict.segments
        if segment.kind is SegmentKind.VERIFY and segment.reward is not None
    ]
