"""How an answer of each kind is read: what verification judges by, and what ingest asks of a reference.

Pure functions, bounded by the length of their input. `math` is not among them: only its computer algebra can say what it
reads, and that may never return.
"""

import re
from fractions import Fraction

from shared.contracts.questions import QuestionKind
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


def is_readable(kind: QuestionKind, reference: str) -> bool:
    """Whether answers can be judged against this reference; one of kind `math` is taken on trust."""
    match kind:
        case QuestionKind.EXACT:
            return bool(normalise(reference))
        case QuestionKind.CHOICE:
            return chosen(reference) is not None
        case QuestionKind.NUMERIC:
            return number(reference) is not None
        case QuestionKind.MATH:
            return True
