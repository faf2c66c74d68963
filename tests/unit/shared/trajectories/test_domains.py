"""Domains: worked solutions are right, verifications tell the truth, slips are wrong."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.trajectories.domains import DOMAINS, domain
from shared.trajectories.domains.arithmetic import parse_expression
from shared.trajectories.segments import ClaimedVerdict, boxed_answer, claimed_verdict

ARITHMETIC, TEXT = domain("arithmetic"), domain("text")
SOLUTION = "He has 72*0.25=18 pebbles.\nHe found some: 18+4=22 pebbles.\nLess the coins: 22-3=19.\n\\boxed{19}"


@st.composite
def expressions(draw: st.DrawFn) -> tuple[str, int]:
    """An expression of 2..5 operands and its value."""
    count = draw(st.integers(2, 5))
    numbers = [draw(st.integers(-99, 99)) for _ in range(count)]
    operators = [draw(st.sampled_from("+-*")) for _ in range(count - 1)]
    space = draw(st.sampled_from(["", " "]))
    text = str(numbers[0])
    for operator, number in zip(operators, numbers[1:], strict=True):
        text += f"{space}{operator}{space}{number}"
    terms, sign = [numbers[0]], [1]
    for operator, number in zip(operators, numbers[1:], strict=True):
        if operator == "*":
            terms[-1] *= number
        else:
            terms.append(number)
            sign.append(1 if operator == "+" else -1)
    return text, sum(a * b for a, b in zip(sign, terms, strict=True))


@given(expressions())
def test_a_worked_solution_is_right_and_confirmed(case: tuple[str, int]) -> None:
    expression, value = case
    question = f"Calculate {expression}."
    solution = ARITHMETIC.solve(question, None)
    assert solution is not None
    assert boxed_answer(solution) == str(value)
    verification = ARITHMETIC.confirm(question, str(value))
    assert verification is not None
    assert claimed_verdict(verification) is ClaimedVerdict.CORRECT


@given(expressions(), st.integers(-50, 50).filter(bool))
def test_a_wrong_answer_is_not_confirmed(case: tuple[str, int], error: int) -> None:
    expression, value = case
    verification = ARITHMETIC.confirm(f"{expression} =", str(value + error))
    assert verification is not None
    assert claimed_verdict(verification) is ClaimedVerdict.INCORRECT


@given(expressions(), st.integers())
def test_a_slip_is_wrong_and_looks_like_a_solution(case: tuple[str, int], seed: int) -> None:
    solution = ARITHMETIC.solve(case[0], None)
    assert solution is not None
    slipped = ARITHMETIC.slip(solution, Random(seed))
    if slipped is not None:
        assert boxed_answer(slipped) not in {None, str(case[1])}
        assert slipped.count("\n") == solution.count("\n")
        assert slipped == ARITHMETIC.slip(solution, Random(seed))


def test_the_texts_are_the_documented_ones() -> None:
    assert ARITHMETIC.solve("Calculate 12+7-5.", None) == "12+7=19\n19-5=14\n\\boxed{14}"
    assert ARITHMETIC.solve("2 + 3 * 4 - 5", None) == "3*4=12\n2+12=14\n14-5=9\n\\boxed{9}"
    assert ARITHMETIC.confirm("12 + 7 - 5 =", "14") == ("14-12=2\n2-7=-5\n-5+5=0\nTherefore, the answer is correct.")
    assert ARITHMETIC.confirm("-3 - 2 * 4", "11") == ("11+3=14\n2*4=8\n14+8=22\nTherefore, the answer is incorrect.")
    assert ARITHMETIC.confirm("12 + 7 - 5 =", "15") == ("15-12=3\n3-7=-4\n-4+5=1\nTherefore, the answer is incorrect.")


@pytest.mark.parametrize("question", ["", "what?", "7", "8 / 2 + 1", "(1 + 2) * 3", "1.5 + 2", "1 + 2 and 3 + 4"])
def test_what_cannot_be_read_gives_nothing(question: str) -> None:
    assert parse_expression(question) is None
    assert ARITHMETIC.solve(question, None) is None
    assert ARITHMETIC.confirm(question, "1") is None


@pytest.mark.parametrize("answer", ["", "x", "1.5", "1" * 40])
def test_an_answer_that_is_no_integer_is_not_confirmed(answer: str) -> None:
    assert ARITHMETIC.confirm("1+2", answer) is None


@pytest.mark.parametrize("name", sorted(DOMAINS))
def test_recomputing_compares_with_another_attempt(name: str) -> None:
    other = "12+7=19\n\\boxed{19}"
    agrees = domain(name).recompute("12+7", "19", other)
    differs = domain(name).recompute("12+7", "18", other)
    assert agrees == "12+7=19\n19=19\nTherefore, the answer is correct."
    assert differs == "12+7=19\n18!=19\nTherefore, the answer is incorrect."
    assert domain(name).recompute("12+7", "18", "no answer") is None


def test_text_takes_its_reference_and_confirms_nothing() -> None:
    assert TEXT.solve("q", SOLUTION) == SOLUTION
    assert TEXT.solve("q", None) is None
    assert TEXT.solve("q", "no box") is None
    assert TEXT.confirm("q", "19") is None


@given(st.integers())
def test_a_slip_in_words_changes_an_equation_and_the_answer(seed: int) -> None:
    slipped = TEXT.slip(SOLUTION, Random(seed))
    assert slipped is not None
    assert boxed_answer(slipped) not in {None, "19"}
    assert slipped[: slipped.index("\\boxed")] != SOLUTION[: SOLUTION.index("\\boxed")]


def test_text_without_equations_cannot_slip() -> None:
    assert TEXT.slip("I just know. \\boxed{19}", Random(0)) is None
    assert TEXT.slip("1+1=2", Random(0)) is None


def test_an_unknown_domain_lists_the_known_ones() -> None:
    with pytest.raises(KeyError, match="arithmetic, text"):
        domain("chemistry")
