"""What a kind says of one answer."""

from dataclasses import dataclass

from shared.contracts.verdicts import UnscoredReason, VerdictOutcome


@dataclass(frozen=True, slots=True)
class Judgement:
    """One answer against one reference; `reason` exactly when unscored, `milliseconds` of work where it was measured."""

    outcome: VerdictOutcome
    reason: UnscoredReason | None = None
    milliseconds: float = 0.0


CORRECT = Judgement(VerdictOutcome.CORRECT)
INCORRECT = Judgement(VerdictOutcome.INCORRECT)


def unscored(reason: UnscoredReason) -> Judgement:
    """Something on our side broke: neither right nor wrong."""
    return Judgement(VerdictOutcome.UNSCORED, reason)


def scored(correct: bool) -> Judgement:
    """Right or wrong."""
    return CORRECT if correct else INCORRECT
