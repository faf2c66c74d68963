"""Multiple choice: the letter (or digit) chosen, as `B`, `(B)`, `B.`, `B) text` or `\\text{B}`."""

from services.verification.kinds.judgement import INCORRECT, Judgement, scored, unscored
from shared.answers import chosen
from shared.contracts.verdicts import UnscoredReason

VERIFIER = "choice@1"


def judge(reference: str, answer: str) -> Judgement:
    """Correct iff both name the same choice."""
    wanted = chosen(reference)
    if wanted is None:
        return unscored(UnscoredReason.REFERENCE_UNPARSEABLE)
    given = chosen(answer)
    return INCORRECT if given is None else scored(given == wanted)
