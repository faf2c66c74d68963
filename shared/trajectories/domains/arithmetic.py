r"""Integer arithmetic without parentheses (`+`, `-`, `*`), as reasoning-gym's chain_sum and basic_arithmetic ask it.

A worked solution has one step a line, left to right, products before the sums that need them:
`12+7=19\n19-5=14\n\boxed{14}`. Confirmative verification takes the terms away from the answer again, in the same order, and nothing
may be left: `14-12=2\n2-7=-5\n-5+5=0`. Its sums are not those of the solution, so they cannot be copied from there, and the verdict
is read off its last number. Division and parentheses are not read: the functions then answer None.
"""

import re
from dataclasses import dataclass
from operator import add, mul, sub
from random import Random

from shared.trajectories.domains.domain import Domain, conclude, recompute
from shared.trajectories.segments import boxed_answer

_OPERATIONS = {"+": add, "-": sub, "*": mul}
_EXPRESSION = re.compile(r"-?\d+(?:\s*[+\-*]\s*-?\d+)+")
_OPERAND = re.compile(r"\s*([+\-*]?)\s*(-?\d+)")
_STEP = re.compile(r"(-?\d+)([+\-*])(-?\d+)=(-?\d+)")
_UNREADABLE = re.compile(r"[/÷×^()]|\d\s*[.,]\s*\d")
_SLIPS = (-1, 1, -1, 1, -2, 2, -10, 10)


@dataclass(frozen=True, slots=True)
class Term:
    """One product of factors with the sign it is added with."""

    sign: str
    factors: tuple[int, ...]


def parse_expression(question: str) -> list[Term] | None:
    """The terms of the one expression in the question, or None when there is none, several, or one that is not supported."""
    found = _EXPRESSION.findall(question)
    if len(found) != 1 or _UNREADABLE.search(question):
        return None
    terms: list[Term] = []
    for position, match in enumerate(_OPERAND.finditer(found[0])):
        operator, number = match.group(1), int(match.group(2))
        if position == 0:
            terms.append(Term("+", (-number if operator == "-" else number,)))
        elif operator == "*":
            terms[-1] = Term(terms[-1].sign, (*terms[-1].factors, number))
        else:
            terms.append(Term(operator or "+", (number,)))
    return terms


def solve(question: str, reference: str | None = None) -> str | None:
    """The worked solution, ending in the boxed answer; the reference is not needed."""
    del reference
    terms = parse_expression(question)
    if terms is None:
        return None
    lines: list[str] = []
    total = _product(terms[0], lines)
    for term in terms[1:]:
        total = _step(total, term.sign, _product(term, lines), lines)
    return "\n".join([*lines, f"\\boxed{{{total}}}"])


def confirm(question: str, answer: str) -> str | None:
    """Confirmative verification of an integer answer, ending in the verdict sentence. None for what is not an integer."""
    terms = parse_expression(question)
    if terms is None or re.fullmatch(r"[+-]?\d{1,18}", answer.strip()) is None:
        return None
    lines: list[str] = []
    left = int(answer)
    for term in terms:
        value = _product(term, lines)
        taken_away = (term.sign == "+") == (value >= 0)
        left = _step(left, "-" if taken_away else "+", abs(value), lines)
    return conclude("\n".join(lines), left == 0)


def slip(solution: str, rng: Random) -> str | None:
    """A wrong attempt: the result of one step is off by a little, and the steps after it carry on with it."""
    steps = [(int(a), operator, int(b), int(c)) for a, operator, b, c in _STEP.findall(solution)]
    if not steps or boxed_answer(solution) is None:
        return None
    at = rng.randrange(len(steps))
    error = rng.choice(_SLIPS)
    lines: list[str] = []
    pending: dict[int, int] = {}
    result = 0
    for index, (left, operator, right, value) in enumerate(steps):
        left, right = pending.pop(left, left), pending.pop(right, right)
        result = _OPERATIONS[operator](left, right) + (error if index == at else 0)
        lines.append(f"{left}{operator}{right}={result}")
        pending[value] = result
    wrong = "\n".join([*lines, f"\\boxed{{{result}}}"])
    return wrong if boxed_answer(wrong) != boxed_answer(solution) else None


def _product(term: Term, lines: list[str]) -> int:
    value = term.factors[0]
    for factor in term.factors[1:]:
        value = _step(value, "*", factor, lines)
    return value


def _step(left: int, operator: str, right: int, lines: list[str]) -> int:
    value: int = _OPERATIONS[operator](left, right)
    lines.append(f"{left}{operator}{right}={value}")
    return value


ARITHMETIC = Domain(name="arithmetic", solve=solve, confirm=confirm, recompute=recompute, slip=slip)
