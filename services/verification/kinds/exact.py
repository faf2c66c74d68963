"""Exact answers: the same text after normalising."""

from services.verification.kinds.judgement import Judgement, scored, unscored
from shared.answers import normalise
from shared.contracts.verdicts import UnscoredReason

VERIFIER = "exact@1"


def judge(reference: str, answer: str) -> Judgement:
    """Correct iff both normalise to the same text; a reference of which nothing is left can't be judged against."""
    wanted = normalise(reference)
    if not wanted:
        return unscored(UnscoredReason.REFERENCE_UNPARSEABLE)
    return scored(normalise(answer) == wanted)
