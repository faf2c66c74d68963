"""Rejection sampling: only right answers that ended, at most so many a question, balanced, the same for the same seed."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.pool.builders.answers import Answer, AnsweredQuestion
from services.pool.builders.rejection import RejectionBuilder, level_share
from shared.contracts.generation import FinishReason
from shared.contracts.snapshots import RejectionRecipe
from shared.contracts.verdicts import ScoredSegment, SegmentKind, VerdictOutcome
from tests.unit.pool.building import build


def answer(text: str, *, right: bool = True, finish: FinishReason = FinishReason.STOP) -> Answer:
    """A response of one segment."""
    segment = ScoredSegment(kind=SegmentKind.SOLVE, start=0, end=len(text), reward=1.0 if right else -1.0)
    return Answer(text, (segment,), VerdictOutcome.CORRECT if right else VerdictOutcome.INCORRECT, finish)


ANSWERS = st.builds(
    answer, st.sampled_from(["a", "bb", "ccc", "dddd"]), right=st.booleans(), finish=st.sampled_from(FinishReason)
)
QUESTIONS = st.lists(st.tuples(st.lists(ANSWERS, max_size=8), st.sampled_from([None, 1, 2, 3])), max_size=12).map(
    lambda drawn: [
        AnsweredQuestion(str(number), f"Question {number}", None, "text", answers, level)
        for number, (answers, level) in enumerate(drawn)
    ]
)
RECIPES = st.builds(
    RejectionRecipe, max_per_question=st.integers(1, 3), balance_levels=st.booleans(), max_rows=st.integers(0, 9)
)


@given(QUESTIONS, RECIPES, st.integers(0, 99), st.integers(1, 5))
def test_what_is_chosen_is_right_bounded_and_of_the_seed(
    questions: list[AnsweredQuestion], recipe: RejectionRecipe, seed: int, at_once: int
):
    chosen = build(RejectionBuilder(recipe, seed), questions)
    assert build(RejectionBuilder(recipe, seed), questions, items_at_once=at_once) == chosen
    offered = {
        question.id: {
            one.text for one in question.answers if one.outcome == "correct" and one.finish_reason != "length"
        }
        for question in questions
    }
    taken = Counter(row.question_id for row in chosen.rows)
    assert len({(row.question_id, row.text) for row in chosen.rows}) == len(chosen.rows)
    assert all(row.text in offered[row.question_id] for row in chosen.rows)
    assert all(count <= recipe.max_per_question for count in taken.values())
    possible = sum(min(len(texts), recipe.max_per_question) for texts in offered.values())
    left_out = sum(chosen.dropped.get(reason, 0) for reason in ("level_balance", "max_rows"))
    assert len(chosen.rows) == possible - left_out
    if recipe.max_rows:
        assert len(chosen.rows) <= recipe.max_rows
    if not recipe.balance_levels:
        assert len(chosen.rows) == min(possible, recipe.max_rows or possible)


@given(QUESTIONS, st.integers(0, 99))
def test_balance_gives_every_level_as_many_as_the_rarest(questions: list[AnsweredQuestion], seed: int):
    levels = {question.id: question.level for question in questions}
    everything = build(RejectionBuilder(RejectionRecipe(), seed), questions).rows
    balanced = build(RejectionBuilder(RejectionRecipe(balance_levels=True), seed), questions).rows
    available = Counter(levels[row.question_id] for row in everything)
    assert Counter(levels[row.question_id] for row in balanced) == dict.fromkeys(
        available, min(available.values(), default=0)
    )


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(1, 200))
def test_a_level_gives_what_is_needed_and_no_more(counts: list[int], max_rows: int):
    each = level_share(counts, max_rows)
    assert sum(min(count, each) for count in counts) >= min(max_rows, sum(counts))
    assert each == 0 or sum(min(count, each - 1) for count in counts) < max_rows


def test_other_seeds_choose_otherwise():
    questions = [
        AnsweredQuestion(str(n), "Q", None, "text", [answer(f"{n} {at}") for at in range(8)]) for n in range(20)
    ]
    recipe = RejectionRecipe(max_per_question=1)
    assert len({str(build(RejectionBuilder(recipe, seed), questions).rows) for seed in range(4)}) == 4


def test_the_mask_trains_what_was_right_and_drops_what_was_cut_off():
    rewards = (-1.0, 1.0, None, 1.0)
    kinds = (SegmentKind.SOLVE, SegmentKind.VERIFY, SegmentKind.OBSERVE, SegmentKind.SOLVE)
    segments = tuple(
        ScoredSegment(kind=kind, start=at, end=at + 1, reward=reward)
        for at, (kind, reward) in enumerate(zip(kinds, rewards, strict=True))
    )
    mended = Answer("abcd", segments, VerdictOutcome.CORRECT)
    cut = answer("cut", finish=FinishReason.LENGTH)
    questions = [
        AnsweredQuestion("0", "Q", None, "text", [mended, cut]),
        AnsweredQuestion("1", "Q", None, "text", [cut]),
        AnsweredQuestion("2", "Q", None, "text", [answer("no", right=False)]),
    ]
    chosen = build(RejectionBuilder(RejectionRecipe(), 0), questions)
    assert [(row.text, [segment.trained for segment in row.segments]) for row in chosen.rows] == [
        ("abcd", [False, True, False, True])
    ]
    assert chosen.dropped == {"not_whole": 1, "no_correct_attempt": 1}


def test_a_teachers_reference_solution_is_whole():
    questions = [AnsweredQuestion("0", "Q", "9", "text", [answer("9", finish=FinishReason.REFERENCE)])]
    assert len(build(RejectionBuilder(RejectionRecipe(), 0), questions).rows) == 1
