"""Verdicts to rewards. A failure is never a reward: what could not be judged has none."""

from collections.abc import Sequence

from services.training.rl.advantages import Reward
from shared.contracts.verdicts import ClaimedVerdict, ScoredSegment, SegmentKind, Verdict, VerdictOutcome

_OUTCOME: dict[VerdictOutcome, Reward] = {
    VerdictOutcome.CORRECT: 1.0,
    VerdictOutcome.INCORRECT: -1.0,
    VerdictOutcome.UNSCORED: None,
}


def outcome_reward(verdict: Verdict) -> Reward:
    """+1 when the last solve is correct, -1 when not, None when unscored. A truncated response keeps its outcome."""
    return _OUTCOME[verdict.outcome]


def action_rewards(verdict: Verdict) -> list[Reward]:
    """One reward per segment of a scored response; a response without segments is one action with its outcome.

    A verify that gives no verdict, or says it cannot, counts as -1: a check without a verdict is not a success. A
    solve without an answer in a scored response is no success either. What the verifier could not judge has None.
    """
    if not verdict.segments:
        return [outcome_reward(verdict)]
    return [_segment_reward(segment) for segment in verdict.segments]


def _segment_reward(segment: ScoredSegment) -> Reward:
    if segment.reward is not None:
        return segment.reward
    if segment.kind is SegmentKind.VERIFY and segment.claimed in (None, ClaimedVerdict.UNVERIFIABLE):
        return -1.0
    if segment.kind is SegmentKind.SOLVE and segment.answer is None:
        return -1.0
    return None


def verification_rewards(verdicts: Sequence[Verdict]) -> list[float]:
    """Rewards of every judged verify segment, for the metric."""
    return [
        segment.reward
        for verdict in verdicts
        for segment in verdict.segments
        if segment.kind is SegmentKind.VERIFY and segment.reward is not None
    ]
