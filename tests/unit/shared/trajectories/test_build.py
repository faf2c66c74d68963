"""Building trajectories: masks, rounds by wrong share, true verdicts only, and a reason for every dropped question."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.trajectories.build import (
    Attempt,
    DropReason,
    Example,
    TeacherQuestion,
    Verification,
    s2r_trajectory,
    segment_mask,
    teacher_trajectory,
)
from shared.trajectories.domains import domain
from shared.trajectories.rounds import PUBLISHED_TABLE, RoundsRule, RoundsTable, rounds_for
from shared.trajectories.segments import ClaimedVerdict, SegmentKind, boxed_answer, parse

ARITHMETIC = domain("arithmetic")
ALWAYS = RoundsTable(
    tuple(RoundsRule(r.wrong_share_up_to, r.rounds, 1.0, r.fewest_rounds) for r in PUBLISHED_TABLE.rules)
)
QUESTION = "Calculate 12+7-5."


def attempt(answer: int) -> Attempt:
    return Attempt(f"12+7=19\n19-5={answer}\n\\boxed{{{answer}}}", str(answer), correct=answer == 14)


def verification(answer: int) -> Verification:
    text = ARITHMETIC.confirm(QUESTION, str(answer))
    assert text is not None
    return Verification(str(answer), text)


def built(answers: list[int], seed: int = 0) -> Example | DropReason:
    return s2r_trajectory([attempt(a) for a in answers], [verification(a) for a in set(answers)], Random(seed), ALWAYS)


@pytest.mark.parametrize(("wrong", "rounds"), [(0, 1), (1, 2), (2, 3), (3, 3), (4, 4), (5, 4)])
def test_the_published_table(wrong: int, rounds: int) -> None:
    assert rounds_for(wrong, 5).rounds == rounds


@given(st.integers(1, 64))
def test_rounds_rise_with_the_wrong_share_for_every_k(k: int) -> None:
    rounds = [rounds_for(wrong, k).rounds for wrong in range(k + 1)]
    assert rounds == sorted(rounds)
    assert (rounds[0], rounds[-1]) == (1, 4)


@pytest.mark.parametrize(("wrong", "k"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(wrong: int, k: int) -> None:
    with pytest.raises(ValueError, match="wrong answers"):
        rounds_for(wrong, k)


def test_a_table_must_reach_one() -> None:
    with pytest.raises(ValueError, match="rise to 1"):
        RoundsTable((RoundsRule(0.5, 2, 1.0, 1),))


def test_masks() -> None:
    assert segment_mask([attempt(14)]) == (1, 1)
    assert segment_mask([attempt(13), attempt(15), attempt(14)]) == (0, 1, 0, 1, 1, 1)


def test_three_rounds_of_the_policys_own_attempts() -> None:
    example = built([14, 14, 14, 13, 15])
    assert isinstance(example, Example)
    assert example.segment_mask == (0, 1, 0, 1, 1, 1)
    assert {s.answer for s in example.trajectory.solves[:2]} == {"13", "15"}
    assert example.trajectory.final_answer == "14"


@given(st.lists(st.integers(11, 16), max_size=8), st.integers())
def test_every_own_trajectory_is_true_and_ends_right(answers: list[int], seed: int) -> None:
    example = built(answers, seed)
    if isinstance(example, DropReason):
        assert example is not DropReason.NO_TRUE_VERIFICATION
        return
    trajectory = example.trajectory
    assert parse(trajectory.text) == trajectory
    assert trajectory.final_answer == "14"
    given_answers = [s.answer for s in trajectory.solves]
    assert len(set(given_answers)) == len(given_answers)
    verdicts = [s.verdict for s in trajectory.segments if s.kind is SegmentKind.VERIFY]
    assert verdicts == [ClaimedVerdict.INCORRECT] * (len(verdicts) - 1) + [ClaimedVerdict.CORRECT]
    assert built(answers, seed) == example


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([], DropReason.NO_ATTEMPTS),
        ([13, 15], DropReason.NO_CORRECT_ATTEMPT),
    ],
)
def test_dropped_questions_have_a_reason(answers: list[int], reason: DropReason) -> None:
    assert built(answers) is reason


def test_a_false_verification_is_never_used() -> None:
    lie = Verification("14", "12!=13\nTherefore, the answer is incorrect.")
    assert s2r_trajectory([attempt(14)], [lie], Random(0), ALWAYS) is DropReason.NO_TRUE_VERIFICATION
    unsure = Verification("14", "Therefore, the answer cannot be verified.")
    assert s2r_trajectory([attempt(14)], [unsure], Random(0), ALWAYS) is DropReason.NO_TRUE_VERIFICATION


def test_wrong_attempts_without_a_true_verification_leave_too_few() -> None:
    attempts = [attempt(14)] * 4 + [attempt(13)]
    assert s2r_trajectory(attempts, [verification(14)], Random(0), ALWAYS) is DropReason.TOO_FEW_WRONG_ATTEMPTS


def test_the_keep_probability_decides() -> None:
    never = RoundsTable((RoundsRule(1.0, 1, 0.0, 1),))
    assert s2r_trajectory([attempt(14)], [verification(14)], Random(0), never) is DropReason.NOT_DRAWN


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_teachers_trajectory_ends_right_after_slips_that_are_found(rounds: int) -> None:
    for a in range(10, 30):
        question = TeacherQuestion(f"Calculate {a}+{a + 7}-3.")
        made = teacher_trajectory(question, ARITHMETIC, rounds, Random(a))
        assert made == teacher_trajectory(question, ARITHMETIC, rounds, Random(a))
        assert isinstance(made, Example)
        solution = ARITHMETIC.solve(question.question, None)
        assert solution is not None
        assert made.trajectory.final_answer == boxed_answer(solution)
        verdicts = [segment.verdict for segment in made.trajectory.segments[1::2]]
        assert verdicts == [ClaimedVerdict.INCORRECT] * (rounds - 1) + [ClaimedVerdict.CORRECT]
        assert made.segment_mask == (0, 1) * (rounds - 1) + (1, 1)


def test_a_teacher_question_that_cannot_be_solved_has_a_reason() -> None:
    assert teacher_trajectory(TeacherQuestion("Who?"), ARITHMETIC, 1, Random(0)) is DropReason.NO_SOLUTION


@pytest.mark.parametrize(("answer", "agrees"), [("14", True), ("14.0", True), ("15", False)])
def test_a_solution_must_have_the_verified_answer(answer: str, agrees: bool) -> None:
    question = TeacherQuestion(QUESTION, f"It is \\boxed{{{answer}}}")
    made = teacher_trajectory(question, ARITHMETIC, 1, Random(0))
    assert isinstance(made, Example) == agrees
    assert agrees or made is DropReason.SOLUTION_DISAGREES


def test_a_text_teacher_recomputes() -> None:
    question = TeacherQuestion("How many?", "There are 3*4=12, less 5: 12-5=7.\n\\boxed{7}")
    example = teacher_trajectory(question, domain("text"), 2, Random(0))
    assert isinstance(example, Example)
    assert example.segment_mask == (0, 1, 1, 1)
    assert "!=7\nTherefore, the answer is incorrect." in example.trajectory.text
