"""A question whose reference cannot be read: nothing can be judged against it.

Verification sees one response at a time and says so only of those that have an answer; one without an answer is incorrect. Of a group we
know more: if the reference cannot be read, nobody knows that any of its responses is wrong.
"""

from collections.abc import Sequence

from shared.contracts.verdicts import UnscoredReason, Verdict, VerdictOutcome


def as_far_as_readable(verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
    """The verdicts of one question's responses; all unscored, without rewards, where one says that the reference cannot be read."""
    if all(verdict.unscored_reason is not UnscoredReason.REFERENCE_UNPARSEABLE for verdict in verdicts):
        return verdicts
    return [_unscored(verdict) for verdict in verdicts]


def _unscored(verdict: Verdict) -> Verdict:
    return verdict.model_copy(
        update={
            "outcome": VerdictOutcome.UNSCORED,
            "unscored_reason": UnscoredReason.REFERENCE_UNPARSEABLE,
            "segments": tuple(segment.model_copy(update={"reward": None}) for segment in verdict.segments),
        }
    )
