"""Mathematical answers, by math-verify (LaTeX, then plain expressions), without its signal timeouts.

`shortcut` decides in microseconds what needs no computer algebra; `judge` is complete, and may hang, eat memory or crash
on hostile input, so that it is only called in a worker process that is killed at its deadline.

Where the reference is a number (with a sign, separators, a currency or a unit; or a fraction), the answer has to be a number
too: math-verify evaluates what it reads, so that `3+4-2`, or `1 2` read as 1 + 2, would be a right answer to the question
"3 + 4 - 2", and reinforcement learning finds that. What stands before an equals sign has to be a name, or equal as well.
"""

import re
from fractions import Fraction
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from services.verification.kinds.judgement import CORRECT, INCORRECT, Judgement, scored, unscored
from shared.contracts.verdicts import UnscoredReason
from shared.trajectories.segments import boxed_answer

VERIFIER = f"math-verify@{version('math-verify')}+3"
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?")
_SEPARATOR = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_UNIT = re.compile(
    r"\s*(?:\\?%|\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\(?:text|mathrm|textbf)\s*\{[^{}]*\}|(?<= )[A-Za-z]{2,})"
    r"(?:\s*\^\s*(?:[23]|\{\s*[23]\s*\}))?"
)
# What may stand before `=`: a name, with a subscript or an argument, but no number and no operator.
_NAME = re.compile(r"(?:[^0-9+\-*/^!_=]|_\s*(?:\{[0-9A-Za-z]+\}|[0-9A-Za-z]))*+")
_SPACING = re.compile(r"\\[,;:! ]|[$]|\\[$()\[\]]|\{(?=,\})|(?<=\{,)\}")
_SIZES = re.compile(r"\\(?:left|right)(?![A-Za-z])")
_AROUND_MARKS = re.compile(r" ?([()\[\]{},=<>+&-]) ?")
_WRAPPER = re.compile(r"(?:\\(?:boxed|text|textbf|mathrm|mathbf)\s*)?\{([^{}]*)\}")
_BARE_EXPRESSION = re.compile(r"[0-9\s.,+\-*/^()%]+")
# A sign, digits, and a unit: letters and marks, with `^2`, `^3` and degrees, but no further number and no operator.
# Possessive, so that no text makes it try twice: `shortcut` runs outside the processes that can be killed.
_WRITTEN_NUMBER = re.compile(
    r"\(?\s*[+-]?\s*[€£¥]?\s*(?:[0-9][0-9,]*+(?:\.[0-9]*)?|\.[0-9]+)\s*"
    r"(?:\\(?:times|cdot)\s*10\s*\^\s*(?:\{\s*-?[0-9]+\s*\}|[0-9])\s*)?"
    r"(?:\^(?>\s*\{?\s*(?:[23]|\\circ)\s*\}?)|[^0-9+\-*^!=])*+"
)
_SCIENTIFIC = re.compile(
    r"([+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?)\s*\\(?:times|cdot)\s*10\s*\^\s*(?:\{\s*(-?[0-9]{1,2})\s*\}|([0-9]))"
)
_WARM_UP = (
    (r"\frac{1}{2}", "0.5x"),
    (r"\frac{3}{7}", r"\frac{6}{14}"),
    ("2.5", r"\frac{5}{2}"),
    (r"12\%", "12%"),
    (r"40^\circ", "40"),
    (r"3\sqrt{2}", r"\sqrt{18}"),
    (r"3\sqrt{2}", r"-3\sqrt{2}"),
    (r"2\pi", r"\frac{4\pi}{2}"),
    ("x^2+3x+2", "(x+1)(x+2)"),
    ("x^2+3x+2", "(x+1)(x-2)"),
    (r"\frac{x}{3}", "x/4"),
    ("(1, 2)", "(2, 1)"),
    (r"\{1, 2, 3\}", r"\{3, 2, 1\}"),
    ("[1, 2)", "[1, 2]"),
    (r"(-\infty, 1) \cup (2, \infty)", r"(2, \infty) \cup (-\infty, 1)"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 5 \end{bmatrix}"),
    ("y = 2x + 1", "y = 1 + 2x"),
    ("x > 3", "3 < x"),
    ("2+3i", "3i+2"),
    (r"\sin(x)", r"\cos(x)"),
    (r"\log(2)", "e^2"),
)
_FRACTION = re.compile(
    r"\(?\s*[+-]?\s*(?:[0-9]+\s*/\s*-?0*[1-9][0-9]*"
    r"|(?:[0-9]+\s*)?\\[dt]?frac\s*(?:\{\s*-?[0-9]+\s*\}|[0-9])\s*(?:\{\s*-?0*[1-9][0-9]*\s*\}|[1-9]))\s*\)?"
)


def shortcut(reference: str, answer: str) -> Judgement | None:
    """The judgement where it is plain: two integers (as math-verify judges them), or no number where one is wanted."""
    wanted, given = _bare(reference), _bare(answer)
    if _INTEGER.fullmatch(wanted) and _INTEGER.fullmatch(given):
        return scored(int(wanted) == int(given))
    if not _is_number(wanted):
        return None
    if not _is_written_number(given, fraction=not _PLAIN_NUMBER.fullmatch(_without_unit(wanted)) or "." in wanted):
        return INCORRECT
    return CORRECT if _PLAIN_NUMBER.fullmatch(wanted) and _scientific(given) == Fraction(wanted) else None


def _is_number(reference: str) -> bool:
    """Whether a reference is a number or a fraction, a sign, separators, currency and unit aside."""
    number = _without_unit(reference)
    return bool(_PLAIN_NUMBER.fullmatch(number) or _FRACTION.fullmatch(number))


def _without_unit(reference: str) -> str:
    """A number without its plus sign, separators, currency and unit; any other text is no number afterwards either."""
    text = " ".join(_SPACING.sub(" ", reference.replace("{,}", ",")).split()).lstrip("€£¥ ")
    unit = next((found for found in _UNIT.finditer(text) if found.end() == len(text)), None)
    number = text[: unit.start()] if unit else text
    return _SEPARATOR.sub("", number).removeprefix("+").strip()


def _scientific(answer: str) -> Fraction | None:
    """The number that is written with a power of ten, exactly; as floating point 2.3 × 10^5 is not 230000."""
    found = _SCIENTIFIC.fullmatch(_SPACING.sub("", answer))
    return Fraction(found[1]) * Fraction(10) ** int(found[2] or found[3]) if found else None


def judge(reference: str, answer: str) -> Judgement:
    """The judgement by computer algebra. Raises what math-verify raises: nothing that broke becomes a verdict."""
    quick = shortcut(reference, answer)
    if quick is not None:
        return quick
    gold = _parse_reference(reference)
    if gold is None:
        return unscored(UnscoredReason.REFERENCE_UNPARSEABLE)
    if _squeezed(answer) == _squeezed(boxed_answer(reference) or reference):
        return CORRECT
    given = _bare(answer)
    claims = given.split("=")[:-1] if _is_number(_bare(reference)) else []
    return scored(
        all(_equals(gold, text) for text in (given, *(claim for claim in claims if not _NAME.fullmatch(claim))))
    )


def _equals(gold: Any, answer: str) -> bool:
    target = _parse(answer)
    if target is None:
        return False
    from math_verify import verify

    try:
        return bool(verify(gold, target, timeout_seconds=None, raise_on_error=True))
    except ValueError as error:
        # math-verify zips chains of relations strictly: chains of different length are not equal.
        if str(error).startswith("zip() argument"):
            return False
        raise


def _squeezed(text: str) -> str:
    """The text without what only moves its parts apart: texts that are equal now write the same."""
    return _AROUND_MARKS.sub(r"\1", " ".join(_SIZES.sub("", _SPACING.sub("", _bare(text))).split()))


def warm_up() -> None:
    """Fill what computer algebra keeps: imports, grammar, assumptions; many times slower the first time, and forked from then on."""
    for reference, answer in _WARM_UP:
        judge(reference, answer)


def _bare(answer: str) -> str:
    """The answer without an outer wrapper (`\\text{72}`, `{72}`) and without a leading equals sign."""
    wrapped = _WRAPPER.fullmatch(answer.strip())
    return (wrapped[1] if wrapped else answer).replace("−", "-").strip().removeprefix("=").strip()


def _is_written_number(answer: str, *, fraction: bool) -> bool:
    value = " ".join(_SPACING.sub("", answer.rpartition("=")[2]).split())
    return bool(_WRITTEN_NUMBER.fullmatch(value)) or (fraction and bool(_FRACTION.fullmatch(_without_unit(value))))


@lru_cache(maxsize=4096)
def _parse_reference(reference: str) -> Any | None:
    gold = _parse(_bare(boxed_answer(reference) or reference))
    if gold is None:
        return None
    from sympy import nan, zoo  # type: ignore[import-untyped]

    return None if gold.has(nan, zoo) else gold


def _parse(answer: str) -> Any | None:
    """The sympy object that the WHOLE answer writes, or None; never a number picked out of a text."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse
    from sympy import Basic, MatrixBase

    latex = LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)
    found = parse(f"\\boxed{{{answer}}}", [latex], parsing_timeout=None, raise_on_error=True)
    if not (found and isinstance(found[0], (Basic, MatrixBase))) and _BARE_EXPRESSION.fullmatch(answer.strip()):
        found = parse(answer.strip(), [ExprExtractionConfig()], parsing_timeout=None, raise_on_error=True)
    return found[0] if found and isinstance(found[0], (Basic, MatrixBase)) else None
