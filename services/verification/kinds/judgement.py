"""What a kind is asked of one answer, and what it says."""

from dataclasses import dataclass

from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import RubricMarks, UnscoredReason, VerdictOutcome


@dataclass(frozen=True, slots=True)
class Check:
    """One answer to be judged against one reference; `question` is what was asked, where the caller says it."""

    kind: QuestionKind
    reference: str
    answer: str
    question: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outcome; `reason` exactly when unscored, `milliseconds` of work where it was measured, `marks` of kind `rubric`."""

    outcome: VerdictOutcome
    reason: UnscoredReason | None = None
    milliseconds: float = 0.0
    marks: RubricMarks | None = None


CORRECT = Judgement(VerdictOutcome.CORRECT)
INCORRECT = Judgement(VerdictOutcome.INCORRECT)


def unscored(reason: UnscoredReason) -> Judgement:
    """Something on our side broke: neither right nor wrong."""
    return Judgement(VerdictOutcome.UNSCORED, reason)


def scored(correct: bool) -> Judgement:
    """Right or wrong."""
    return CORRECT if correct else INCORRECT
