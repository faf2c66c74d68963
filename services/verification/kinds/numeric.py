"""Numbers: integers and fractions exactly, decimals within a relative 1e-6; currency, units of percent and commas aside."""

import re
from fractions import Fraction

from services.verification.kinds.judgement import CORRECT, INCORRECT, Judgement, scored, unscored
from shared.contracts.verdicts import UnscoredReason

VERIFIER = "numeric@1"
RELATIVE_TOLERANCE = Fraction(1, 1_000_000)
MAX_CHARACTERS = 200
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{{1,3}})?"
_NUMBER = re.compile(rf"^([+-]?)({_DECIMAL})(?:/({_DIGITS}))?%?$")
_FRACTION = re.compile(r"^([+-]?)\\[dt]?frac\{([+-]?[0-9]+)\}\{([0-9]+)\}%?$")
_NOISE = re.compile(r"\\[,;!$ ]|[\s$€£¥]|\\(?=%)")


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


def number(text: str) -> Fraction | None:
    """The number that a whole text writes, or None."""
    if len(text) > MAX_CHARACTERS:
        return None
    text = _NOISE.sub("", text.replace("−", "-").replace("{,}", ",")).removesuffix(".")
    if match := _FRACTION.match(text):
        sign, numerator, denominator = match.groups()
    elif match := _NUMBER.match(text):
        sign, numerator, denominator = match[1], match[2].replace(",", ""), (match[3] or "1").replace(",", "")
    else:
        return None
    if int(denominator) == 0:
        return None
    value = Fraction(numerator) / int(denominator)
    return -value if sign == "-" else value
