"""Numbers: within the tolerance that the reference names, else integers and fractions exactly, and decimals within a relative 1e-6.

Currency, units of percent and commas aside.
"""

from fractions import Fraction

from services.verification.kinds.judgement import INCORRECT, Judgement, scored, unscored
from shared.answers import within
from shared.contracts.verdicts import UnscoredReason

VERIFIER = "numeric@3"
RELATIVE_TOLERANCE = Fraction(1, 1_000_000)


def judge(reference: str, answer: str) -> Judgement:
    """Correct iff both are the same number; a percent sign is a unit (50 % is judged as 50). An answer's own tolerance is not read."""
    wanted, given = within(reference), within(answer)
    if wanted is None:
        return unscored(UnscoredReason.REFERENCE_UNPARSEABLE)
    if given is None:
        return INCORRECT
    tolerance = wanted.tolerance
    if tolerance is None:
        is_decimal = "." in reference or "e" in reference.lower()
        tolerance = RELATIVE_TOLERANCE * abs(wanted.value) if is_decimal else Fraction(0)
    return scored(abs(wanted.value - given.value) <= tolerance)
