"""Numbers: integers and fractions exactly, decimals within a relative 1e-6; currency, units of percent and commas aside."""

from fractions import Fraction

from services.verification.kinds.judgement import CORRECT, INCORRECT, Judgement, scored, unscored
from shared.answers import number
from shared.contracts.verdicts import UnscoredReason

VERIFIER = "numeric@1"
RELATIVE_TOLERANCE = Fraction(1, 1_000_000)


def judge(reference: str, answer: str) -> Judgement:
    """Correct iff both are the same number; a percent sign is a unit (50 % is judged as 50)."""
    wanted = number(reference)
    if wanted is None:
        return unscored(UnscoredReason.REFERENCE_UNPARSEABLE)
    given = number(answer)
    if given is None:
        return INCORRECT
    if wanted == given:
        return CORRECT
    is_decimal = "." in reference + answer or "e" in (reference + answer).lower()
    return scored(is_decimal and abs(wanted - given) <= RELATIVE_TOLERANCE * abs(wanted))
