"""How an answer of each kind is read: what verification judges by, and what ingest asks of a reference.

Pure functions, bounded by the length of their input. `math` is not among them: only its computer algebra can say what it
reads, and that may never return.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from shared.contracts.questions import QuestionKind
from shared.contracts.references import code_tests, rubric
from shared.normal_forms import nfkc

_WRAPPER = re.compile(r"^\\(?:text|textbf|textit|mathrm|mathbf|boxed)\s*\{(.*)\}$", re.DOTALL)
_OUTER = " \t\r\n.,;:!?\"'`$*"
# A letter alone, in brackets, or followed by a mark: "a dog" is not choice A.
_CHOICE = re.compile(r"^(?:[(\[]([a-z0-9])[)\]](?:\W.*)?|([a-z0-9])(?:[).:\]](?:\s.*)?)?)$", re.DOTALL)
MAX_NUMBER_CHARACTERS = 200
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{{1,3}})?"
_NUMBER = re.compile(rf"^([+-]?)({_DECIMAL})(?:/({_DIGITS}))?%?$")
_FRACTION = re.compile(r"^([+-]?)\\[dt]?frac\{([+-]?[0-9]+)\}\{([0-9]+)\}%?$")
_WITHIN = re.compile(r"±|\+/?-|\\pm(?![a-z])")
_NOISE = re.compile(r"\\[,;!$ ]|[\s$€£¥]|\\(?=%)")


def normalise(text: str) -> str:
    """Kind `exact`: the form that is compared (NFKC, case, white space, outer punctuation, `\\text{}` and `$`)."""
    text = nfkc(text).strip(_OUTER)
    if match := _WRAPPER.match(text):
        text = match[1].strip(_OUTER)
    return " ".join(text.casefold().split())


def chosen(text: str) -> str | None:
    """Kind `choice`: the one choice that a text names, in lower case, or None."""
    match = _CHOICE.match(normalise(text))
    return match and (match[1] or match[2])


def number(text: str) -> Fraction | None:
    """Kind `numeric`: the number that a whole text writes, or None."""
    if len(text) > MAX_NUMBER_CHARACTERS:
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


class Within(NamedTuple):
    """A number and how far another may be from it; None where the text does not say."""

    value: Fraction
    tolerance: Fraction | None


def within(text: str) -> Within | None:
    """Kind `numeric`: a number alone, or with an absolute or a relative tolerance (`3.14 ± 0.01`, `200 ± 5%`; also `+-`, `\\pm`)."""
    written, *tolerances = _WITHIN.split(text) if len(text) <= MAX_NUMBER_CHARACTERS else (text,)
    value = number(written)
    if value is None or not tolerances:
        return value if value is None else Within(value, None)
    tolerance = number(tolerances[0]) if len(tolerances) == 1 else None
    if tolerance is None or tolerance < 0:
        return None
    is_relative = tolerances[0].strip(" $").endswith("%")
    return Within(value, tolerance * abs(value) / 100 if is_relative else tolerance)


def is_readable(kind: QuestionKind, reference: str) -> bool:
    """Whether answers can be judged against this reference; one of kind `math` is taken on trust."""
    match kind:
        case QuestionKind.EXACT:
            return bool(normalise(reference))
        case QuestionKind.CHOICE:
            return chosen(reference) is not None
        case QuestionKind.NUMERIC:
            return within(reference) is not None
        case QuestionKind.CODE:
            return code_tests(reference) is not None
        case QuestionKind.RUBRIC:
            return rubric(reference) is not None
        case QuestionKind.MATH:
            return True
