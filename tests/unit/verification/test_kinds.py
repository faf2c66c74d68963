"""Every kind judges right, wrong and unjudgeable; the shortcut of `math` says what math-verify says."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.verification.kinds import choice, exact, math, numeric
from services.verification.kinds.judgement import CORRECT, INCORRECT, Judgement
from services.verification.service import IN_PROCESS, SHORTCUTS, VERIFIERS
from services.verification.worker import POOLED
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import UnscoredReason

RIGHT = [
    ("42", "42"),
    ("42", "42."),
    ("42", "$42$"),
    ("42", r"\text{42}"),
    ("42", "= 42"),
    ("42", "42 apples"),
    ("42", r"42\text{ cm}^2"),
    ("42", "x = 42"),
    ("42", "40 + 2 = 42"),
    ("42", r"4.2 \times 10^1"),
    ("230000", r"2.3 \times 10^5"),
    ("0.0023", r"2.3 \cdot 10^{-3}"),
    ("1234", "1,234"),
    ("12.50", "25/2"),
    ("12.50", r"\$12.5"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{1}{2}", r"\frac12"),
    (r"\frac{3}{2}", r"1\frac{1}{2}"),
    (r"-\frac{1}{2}", r"\frac{-1}{2} \text{ cm}"),
    ("1{,}000", "1000"),
    (r"\$18", "18"),
    ("18 cm", r"18\text{ cm}"),
    (r"5^\circ", "5"),
    ("+5", "f(x) = 5"),
    ("5", r"\angle ABC = 5"),
    ("x^2", "x * x"),
    ("(1, 2)", "(1,2)"),
    (r"\boxed{7}", "7"),
    (r"\left[1, 2\right)", "[1,2)"),
    (r"x \leftarrow 2", r"x \leftarrow 2"),
]
WRONG = [
    ("42", "41"),
    ("42", "forty-two"),
    ("230000", r"2.3 \times 10^6"),
    ("42", "}{"),
    ("42", "42 (mod 7)"),
    ("x^2", "x^3"),
    ("2 x", "x"),
    ("[1, 2)", "[1, 2]"),
    ("1<x<2<y", "1<x<2"),
    ("3", r"\frac{1}{0}"),
]
# math-verify evaluates each of these to the reference: the question copied into the box must not be an answer.
UNEVALUATED = [
    ("42", "3 + 39"),
    ("42", "84/2"),
    ("42", "6*7"),
    ("42", "6(7)"),
    ("42", "40 2"),
    ("1,000", "500+500"),
    ("1{,}000", "500+500"),
    (r"\$18", "9*2"),
    ("18 cm", "9+9"),
    (r"18\text{ cm}", "9+9"),
    (r"5^\circ", "2+3"),
    ("+5", "2+3"),
    (r"\frac{1}{2}", r"\frac13+\frac16"),
    ("1/2", "1-1/2"),
    # An equation has to be true.
    ("5", "2+2=5"),
    ("5", "6=5"),
    ("42", "43 - 1"),
    ("42", "50 + -8"),
    ("12", r"\sqrt{144}"),
    ("12.5", "25*0.5"),
    ("42", "42 = 40 + 2"),
]


@pytest.mark.parametrize(("reference", "answer"), RIGHT)
def test_math_right(reference: str, answer: str):
    assert math.judge(reference, answer) == CORRECT


@pytest.mark.parametrize(("reference", "answer"), WRONG + UNEVALUATED)
def test_math_wrong(reference: str, answer: str):
    assert math.judge(reference, answer) == INCORRECT


@pytest.mark.parametrize("reference", ["@#!", "1/0", "{"])
def test_math_reference_unparseable(reference: str):
    assert math.judge(reference, "x + 1").reason is UnscoredReason.REFERENCE_UNPARSEABLE


integers = st.integers(-(10**18) + 1, 10**18 - 1)


@settings(max_examples=60, deadline=None)
@given(integers, st.one_of(st.none(), st.integers(-3, 3), integers))
def test_shortcut_on_integers_is_math_verify(reference: int, other: int | None):
    answer = reference if other is None else (reference + other if abs(other) <= 3 else other)
    if abs(answer) >= 10**18:
        answer = reference
    from math_verify import parse, verify

    def read(number: int):
        return parse(f"\\boxed{{{number}}}", parsing_timeout=None)

    expected = verify(read(reference), read(answer), timeout_seconds=None)
    assert math.shortcut(str(reference), str(answer)) == (CORRECT if expected else INCORRECT)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.text(alphabet="0123456789 .,+-*/^(){}\\=abox", max_size=60))
def test_in_process_judges_never_raise(reference: str, answer: str):
    for judge in (*IN_PROCESS.values(), *SHORTCUTS.values()):
        judge(reference, answer)
        judge("12", answer)


def test_shortcut_is_fast_on_hostile_white_space():
    # Cubic backtracking on this would run for minutes, and the test's own timeout would end it.
    assert math.shortcut("12", "(" + " " * 20_000 + "x") == INCORRECT
    assert math.shortcut("12", "1" + " " * 20_000 + "+") == INCORRECT


@pytest.mark.parametrize(
    ("reference", "answer", "judgement"),
    [
        ("12", "12.0", CORRECT),
        ("12", "12", CORRECT),
        ("1,234", "1234", CORRECT),
        ("50", r"50\%", CORRECT),
        ("0.5", "1/2", CORRECT),
        ("-3", "−3", CORRECT),
        ("0.3333333", "1/3", CORRECT),
        ("1e3", "1000", CORRECT),
        ("12", "13", INCORRECT),
        ("1/3", "33/100", INCORRECT),
        ("12", "1/0", INCORRECT),
        ("12", "6+6", INCORRECT),
        ("12", "", INCORRECT),
        ("1000000", "1000001", INCORRECT),
        ("3.14 ± 0.01", "3.15", CORRECT),
        ("3.14 ± 0.01", "3.1501", INCORRECT),
        ("3.14 ± 0.01", "3.14 ± 0.01", CORRECT),
        ("200 ± 5%", "209.9", CORRECT),
        ("-200 +- 5 %", "-211", INCORRECT),
        (r"7 \pm 0", "7", CORRECT),
        (r"7 \pm 0", "7.0000001", INCORRECT),
        ("1/3 +/- 1/100", "0.34", CORRECT),
    ],
)
def test_numeric(reference: str, answer: str, judgement: Judgement):
    assert numeric.judge(reference, answer) == judgement


@pytest.mark.parametrize("reference", ["3 ± 1 ± 1", "3 ± -1", "± 3", "3 ±", "3 ± x", "1" * 300])
def test_numeric_reference_unparseable(reference: str):
    assert numeric.judge(reference, "3").reason is UnscoredReason.REFERENCE_UNPARSEABLE


@given(st.fractions(min_value=-1000, max_value=1000))
def test_numeric_is_exact_on_fractions(value: Fraction):
    assert numeric.judge(str(value), str(value)) == CORRECT
    assert numeric.judge(str(value), str(value + 1)) == INCORRECT


def test_exact():
    assert exact.judge("Paris", r" \text{paris}. ") == CORRECT
    assert exact.judge("New  York", "new york") == CORRECT
    assert exact.judge("Paris", "Parisian") == INCORRECT
    assert exact.judge("...", "...").reason is UnscoredReason.REFERENCE_UNPARSEABLE


@pytest.mark.parametrize("answer", ["B", "(b)", "B.", "B) Rome", r"\text{B}", "(B) Rome"])
def test_choice_right(answer: str):
    assert choice.judge("B", answer) == CORRECT


@pytest.mark.parametrize("answer", ["A", "Bravo", "b rome", "AB", ""])
def test_choice_wrong(answer: str):
    assert choice.judge("B", answer) == INCORRECT
    assert choice.judge("the second", answer).reason is UnscoredReason.REFERENCE_UNPARSEABLE


def test_every_kind_has_a_judge_and_a_name():
    elsewhere = {QuestionKind.CODE, QuestionKind.RUBRIC}
    assert set(IN_PROCESS) | set(POOLED) | elsewhere == set(QuestionKind) == set(VERIFIERS)
