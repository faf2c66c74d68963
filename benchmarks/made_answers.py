"""Answers whose truth is known because of how they were made: equal forms of a value, near misses, and strings that are no answer.

Every case is (form, reference, answer, expected), made from a seed; nothing here is judged by a verifier.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from random import Random
from typing import NamedTuple


class Case(NamedTuple):
    """One answer to judge: whether it says what the reference says is known."""

    form: str
    reference: str
    answer: str
    is_equal: bool


Pair = tuple[str, str, bool]
Maker = Callable[[Random], list[Pair]]


def _integer(random: Random) -> list[Pair]:
    n = random.randrange(-9999, 10_000)
    same = random.choice([f"{n}", f"${n}$", f"{n}.", f"\\text{{{n}}}", f"{n}.0", f"x = {n}"])
    other = random.choice([n + 1, n - 1, n + 10, -n if n else 1, 10 * n if n else 2])
    return [(str(n), same, True), (str(n), str(other), False)]


def _thousands(random: Random) -> list[Pair]:
    n = random.randrange(1000, 100_000_000)
    same = random.choice([f"{n:,}", f"{n:,}".replace(",", "{,}"), str(n)])
    return [(str(n), same, True), (str(n), f"{n + random.choice([1, 10, 1000]):,}", False)]


def _fraction(random: Random) -> list[Pair]:
    value = Fraction(random.randrange(1, 60), random.randrange(2, 60))
    value = value if value.denominator > 1 else value + Fraction(1, 7)
    a, b, k = value.numerator, value.denominator, random.randrange(2, 6)
    same = random.choice(
        [f"{a}/{b}", f"\\dfrac{{{a}}}{{{b}}}", f"\\frac{{{k * a}}}{{{k * b}}}", f"\\frac{{{a}}}{{{b}}}"]
    )
    miss = random.choice([f"\\frac{{{a + 1}}}{{{b}}}", f"\\frac{{{a}}}{{{b + 1}}}", f"-\\frac{{{a}}}{{{b}}}"])
    return [(f"\\frac{{{a}}}{{{b}}}", same, True), (f"\\frac{{{a}}}{{{b}}}", miss, False)]


def _decimal(random: Random) -> list[Pair]:
    n, power = random.randrange(1, 2000), random.choice([4, 8, 20, 25])
    value = Fraction(2 * n + 1, power)
    text = f"{float(value)}"
    same = random.choice([text, f"{text}0", f"\\frac{{{value.numerator}}}{{{value.denominator}}}"])
    return [(text, same, True), (text, f"{float(value + Fraction(1, 100))}", False)]


def _percent(random: Random) -> list[Pair]:
    n = random.randrange(1, 100)
    return [(f"{n}\\%", random.choice([f"{n}%", f"{n}\\%", f"${n}\\%$"]), True), (f"{n}\\%", f"{n + 1}\\%", False)]


def _unit(random: Random) -> list[Pair]:
    n, unit = random.randrange(2, 500), random.choice(["cm", "km", "m", "kg", "hours", "apples", "miles"])
    same = random.choice([f"{n}\\text{{ {unit}}}", f"{n} {unit}", f"{n}\\,\\mathrm{{{unit}}}", f"{n}"])
    return [(str(n), same, True), (str(n), f"{n + 1}\\text{{ {unit}}}", False)]


def _currency(random: Random) -> list[Pair]:
    n = random.randrange(1, 900)
    return [(f"{n}", random.choice([f"\\${n}", f"${n}", f"\\${n}.00"]), True), (f"{n}", f"\\${n + 1}", False)]


def _degrees(random: Random) -> list[Pair]:
    n = random.randrange(1, 180)
    return [
        (f"{n}^\\circ", random.choice([f"{n}", f"{n}^{{\\circ}}", f"{n}^\\circ"]), True),
        (f"{n}^\\circ", f"{n + 1}^\\circ", False),
    ]


def _scientific(random: Random) -> list[Pair]:
    a, power = random.randrange(11, 99), random.randrange(2, 7)
    value = a * 10 ** (power - 1)
    return [(str(value), f"{a / 10} \\times 10^{power}", True), (str(value), f"{a / 10} \\times 10^{power + 1}", False)]


def _root(random: Random) -> list[Pair]:
    a, b = random.randrange(2, 9), random.choice([2, 3, 5, 6, 7, 10, 11])
    same = random.choice([f"\\sqrt{{{a * a * b}}}", f"{a} \\sqrt{{{b}}}", f"{a}\\cdot\\sqrt{{{b}}}"])
    miss = random.choice([f"\\sqrt{{{a * a * b + 1}}}", f"{a + 1}\\sqrt{{{b}}}", f"-{a}\\sqrt{{{b}}}"])
    return [(f"{a}\\sqrt{{{b}}}", same, True), (f"{a}\\sqrt{{{b}}}", miss, False)]


def _pi(random: Random) -> list[Pair]:
    a = random.randrange(2, 50)
    same = random.choice([f"\\pi \\cdot {a}", f"\\frac{{{2 * a}\\pi}}{{2}}", f"{a} \\pi"])
    miss = random.choice([f"{a + 1}\\pi", f"{a}\\pi^2", f"{3.14 * a:.2f}", f"{a}"])
    return [(f"{a}\\pi", same, True), (f"{a}\\pi", miss, False)]


def _polynomial(random: Random) -> list[Pair]:
    a, b = random.randrange(1, 9), random.randrange(1, 9)
    reference = f"x^2+{a + b}x+{a * b}"
    same = random.choice([f"(x+{a})(x+{b})", f"{a * b}+{a + b}x+x^2", f"x^{{2}} + {a + b} x + {a * b}"])
    miss = random.choice([f"(x+{a})(x-{b})", f"x^2+{a + b + 1}x+{a * b}", f"x^2+{a + b}x"])
    return [(reference, same, True), (reference, miss, False)]


def _rational(random: Random) -> list[Pair]:
    a = random.randrange(2, 20)
    return [
        (f"\\frac{{x}}{{{a}}}", random.choice([f"x/{a}", f"\\frac{{1}}{{{a}}}x", f"\\frac{{2x}}{{{2 * a}}}"]), True),
        (f"\\frac{{x}}{{{a}}}", random.choice([f"\\frac{{{a}}}{{x}}", f"x/{a + 1}", f"\\frac{{y}}{{{a}}}"]), False),
    ]


def _tuple(random: Random) -> list[Pair]:
    a, b = random.sample(range(-20, 20), 2)
    same = random.choice([f"({a},{b})", f"\\left({a}, {b}\\right)", f"( {a} , {b} )"])
    return [(f"({a}, {b})", same, True), (f"({a}, {b})", random.choice([f"({b}, {a})", f"({a}, {b + 1})"]), False)]


def _set(random: Random) -> list[Pair]:
    members = random.sample(range(-30, 30), 3)
    text = ", ".join(map(str, members))
    turned = ", ".join(map(str, reversed(members)))
    miss = random.choice([", ".join(map(str, members[:2])), ", ".join(map(str, [*members[:2], 99]))])
    return [(f"\\{{{text}\\}}", f"\\{{{turned}\\}}", True), (f"\\{{{text}\\}}", f"\\{{{miss}\\}}", False)]


def _interval(random: Random) -> list[Pair]:
    a, b = sorted(random.sample(range(-20, 20), 2))
    reference = f"[{a}, {b})"
    same = random.choice([f"[{a},{b})", f"\\left[{a}, {b}\\right)"])
    miss = random.choice([f"[{a}, {b}]", f"({a}, {b})", f"[{a}, {b + 1})"])
    return [(reference, same, True), (reference, miss, False)]


def _union(random: Random) -> list[Pair]:
    a, b = sorted(random.sample(range(-20, 20), 2))
    reference = f"(-\\infty, {a}) \\cup ({b}, \\infty)"
    return [
        (reference, f"({b}, \\infty) \\cup (-\\infty, {a})", True),
        (reference, random.choice([f"(-\\infty, {a}] \\cup ({b}, \\infty)", f"(-\\infty, {a})"]), False),
    ]


def _matrix(random: Random) -> list[Pair]:
    a, b, c, d = (random.randrange(-9, 10) for _ in range(4))
    reference = f"\\begin{{pmatrix}} {a} & {b} \\\\ {c} & {d} \\end{{pmatrix}}"
    same = random.choice(["pmatrix", "bmatrix"])
    return [
        (reference, f"\\begin{{{same}}} {a} & {b} \\\\ {c} & {d} \\end{{{same}}}", True),
        (reference, f"\\begin{{pmatrix}} {a} & {b} \\\\ {c} & {d + 1} \\end{{pmatrix}}", False),
    ]


def _equation(random: Random) -> list[Pair]:
    a, b = random.randrange(2, 9), random.randrange(1, 9)
    same = random.choice([f"y = {b} + {a}x", f"y={a}x+{b}"])
    return [
        (f"y = {a}x + {b}", same, True),
        (f"y = {a}x + {b}", random.choice([f"y = {a}x - {b}", f"y = {a + 1}x + {b}"]), False),
    ]


def _inequality(random: Random) -> list[Pair]:
    a = random.randrange(-9, 10)
    return [
        (f"x > {a}", random.choice([f"x>{a}", f"{a} < x"]), True),
        (f"x > {a}", random.choice([f"x < {a}", f"x > {a + 1}"]), False),
    ]


def _complex(random: Random) -> list[Pair]:
    a, b = random.randrange(1, 10), random.randrange(2, 10)
    return [(f"{a}+{b}i", f"{b}i+{a}", True), (f"{a}+{b}i", random.choice([f"{a}-{b}i", f"{a + 1}+{b}i"]), False)]


def _unevaluated(random: Random) -> list[Pair]:
    """The question copied into the box is no answer, although it comes to the reference."""
    a, b = random.randrange(2, 90), random.randrange(2, 90)
    copied = random.choice([f"{a} + {b}", f"{a + 2 * b} - {b}", f"{a}+{b}+0"])
    return [
        (str(a + b), copied, False),
        (str(a * b), random.choice([f"{a} \\cdot {b}", f"{a}({b})", f"{a}*{b}"]), False),
    ]


def _hedged(random: Random) -> list[Pair]:
    """Several answers at once are none."""
    n = random.randrange(10, 1000)
    others = [f"{n} or {n + 1}", f"{n}, {n + 1}", f"{n - 1}, {n}, {n + 1}", f"\\{{{n}, {n + 1}\\}}", f"not {n}"]
    return [(str(n), random.choice(others), False)]


def _hostile(random: Random) -> list[Pair]:
    """Strings that are no answer to anything."""
    n = random.randrange(2, 1000)
    strings = [
        "",
        " ",
        "}{",
        "\\frac{}{}",
        "\\sqrt{",
        "1/0",
        "\\infty",
        "nan",
        "None",
        "\0",
        "🙂",
        "\\",
        "{" * 40,
        "x" * 500,
        "()",
        "?",
    ]
    reference = random.choice([str(n), f"\\frac{{{n}}}{{7}}", f"x^2+{n}", f"({n}, 1)"])
    return [(reference, random.choice(strings), False)]


FORMS: dict[str, Maker] = {
    "integer": _integer,
    "thousands separators": _thousands,
    "fraction": _fraction,
    "decimal": _decimal,
    "percentage": _percent,
    "unit": _unit,
    "currency": _currency,
    "degrees": _degrees,
    "scientific": _scientific,
    "root": _root,
    "multiple of pi": _pi,
    "polynomial": _polynomial,
    "rational function": _rational,
    "tuple": _tuple,
    "set": _set,
    "interval": _interval,
    "union of intervals": _union,
    "matrix": _matrix,
    "equation": _equation,
    "inequality": _inequality,
    "complex": _complex,
    "unevaluated": _unevaluated,
    "hedged": _hedged,
    "hostile": _hostile,
}
STANDARD = tuple(form for form in FORMS if form not in ("unevaluated", "hedged", "hostile"))


def cases(seed: int, forms: tuple[str, ...] = tuple(FORMS)) -> Iterator[Case]:
    """Cases without end, the forms in turn."""
    random = Random(seed)
    while True:
        for form in forms:
            for reference, answer, is_equal in FORMS[form](random):
                yield Case(form, reference, answer, is_equal)
