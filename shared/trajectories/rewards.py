"""Verdicts to the rewards of RL, the same for leased groups and for `offline-rl` snapshots. A failure is never a reward: what could not
be judged has none.
"""

from collections.abc import Sequence

from shared.contracts.verdicts import ClaimedVerdict, ScoredSegment, SegmentKind, VerdictOutcome

_OUTCOME: dict[VerdictOutcome, float | None] = {
    VerdictOutcome.CORRECT: 1.0,
    VerdictOutcome.INCORRECT: -1.0,
    VerdictOutcome.UNSCORED: None,
}


def outcome_reward(outcome: VerdictOutcome) -> float | None:
    """+1 when the last solve is correct, -1 when not, None when unscored. A truncated response keeps its outcome."""
    return _OUTCOME[outcome]


def action_rewards(outcome: VerdictOutcome, segments: Sequence[ScoredSegment]) -> list[float | None]:
    """One reward per segment of a scored response; a response without segments is one action with its outcome.

    A verify that gives no verdict, or says it cannot, counts as -1: a check without a verdict is not a success. A
    solve without an answer in a scored response is no success either. What the verifier could not judge has None.
    """
    if not segments:
        return [outcome_reward(outcome)]
    return [_segment_reward(segment) for segment in segments]


def _segment_reward(segment: ScoredSegment) -> float | None:
    if segment.reward is not None:
        return segment.reward
    if segment.kind is SegmentKind.VERIFY and segment.claimed in (None, ClaimedVerdict.UNVERIFIABLE):
        return -1.0
    if segment.kind is SegmentKind.SOLVE and segment.answer is None:
        return -1.0
    return None
