"""Snapshot recipes: masks, balance, styles, and the same bytes for the same seed."""

from collections.abc import Sequence
from random import Random

import pytest

from services.pool.builders.answers import Answer, AnsweredQuestion
from services.pool.builders.distill import DistillBuilder
from services.pool.builders.rows import Row
from services.pool.builders.s2r import S2rBuilder
from shared.contracts.recipe import BuildRecipe, TeachRecipe, VerificationStyle
from shared.contracts.verdicts import ClaimedVerdict, ScoredSegment, SegmentKind
from shared.trajectories.segments import parse
from tests.unit.pool.building import Outcome, build

KEEP_ALL = (1.0, 1.0, 1.0, 1.0)


def answer(text: str, right: str) -> Answer:
    """A response as verification judges it."""
    segments, correct = [], False
    for segment in parse(text).segments:
        kind = SegmentKind(segment.kind.value)
        if kind is SegmentKind.SOLVE:
            correct = segment.answer == right
        claimed = None if segment.verdict is None else ClaimedVerdict(segment.verdict.value)
        true = (
            correct
            if kind is SegmentKind.SOLVE
            else claimed is (ClaimedVerdict.CORRECT if correct else ClaimedVerdict.INCORRECT)
        )
        segments.append(
            ScoredSegment(
                kind=kind,
                start=segment.start,
                end=segment.end,
                answer=segment.answer,
                claimed=claimed,
                reward=1.0 if true else -1.0,
            )
        )
    return Answer(text, tuple(segments))


def question(number: int, wrong: int, k: int = 8, domain: str = "arithmetic") -> AnsweredQuestion:
    """A sum with `wrong` different wrong answers of k."""
    right = number + 5
    values = [right + 1 + at if at < wrong else right for at in range(k)]
    texts = [f"{number}+5={value}\n\\boxed{{{value}}}" for value in values]
    Random(number).shuffle(texts)
    return AnsweredQuestion(
        str(number), f"Calculate {number}+5.", None, domain, [answer(text, str(right)) for text in texts]
    )


def s2r(
    questions: Sequence[AnsweredQuestion], recipe: BuildRecipe, replay: Sequence[Row] = (), seed: int = 0
) -> Outcome:
    """What the recipe makes of these questions."""
    return build(S2rBuilder(recipe, seed), questions, replay)


QUESTIONS = [question(10 + number, number % 9) for number in range(90)]


def assert_sound(row: Row) -> None:
    """The row reads back as it was written, and only right attempts and verifications are trained."""
    parsed = parse(row.text)
    assert parsed.unparsed is None or len(row.segments) == 1
    assert [(segment.start, segment.end) for segment in parsed.segments] == [
        (segment.start, segment.end) for segment in row.segments
    ]
    right = str(int(row.question_id) + 5)
    for segment, written in zip(parsed.segments, row.segments, strict=True):
        assert written.trained == (segment.answer == right or written.kind is SegmentKind.VERIFY)
    assert parsed.final_answer == right


def test_own_attempts_are_built_balanced_and_deterministic():
    recipe = BuildRecipe(keep_probability=KEEP_ALL, replay_fraction=0.0)
    built = s2r(QUESTIONS, recipe, seed=1)
    for row in built.rows:
        assert_sound(row)
    first_correct = sum(row.rounds == 1 for row in built.rows)
    assert 2 * first_correct == len(built.rows) > 0
    assert {row.rounds for row in built.rows} == {1, 2, 3, 4}
    assert built.dropped["no_correct_attempt"] == 10
    masks = {tuple(int(segment.trained) for segment in row.segments) for row in built.rows}
    assert masks == {(1, 1), (0, 1, 1, 1), (0, 1, 0, 1, 1, 1), (0, 1, 0, 1, 0, 1, 1, 1)}
    assert s2r(QUESTIONS, recipe, seed=1) == built != s2r(QUESTIONS, recipe, seed=2)


def test_one_more_question_changes_nothing_about_the_others():
    recipe = BuildRecipe(replay_fraction=0.0, one_round_fraction=0.0, balance_verdicts=False)
    few, more = (s2r(questions, recipe, seed=1).rows for questions in (QUESTIONS[:40], QUESTIONS))
    assert [row for row in more if int(row.question_id) < 50] == few != []


def test_replay_is_a_share_of_the_built_rows_and_the_limit_counts_what_it_cuts():
    replay = s2r(QUESTIONS[:9], BuildRecipe(keep_probability=KEEP_ALL, replay_fraction=0)).rows
    alone = s2r(QUESTIONS[40:49], BuildRecipe(keep_probability=KEEP_ALL))
    mixed = s2r(QUESTIONS[40:49], BuildRecipe(keep_probability=KEEP_ALL, replay_fraction=0.5), replay)
    assert len(mixed.rows) == len(alone.rows) + min(len(replay), round(0.5 * len(alone.rows)))
    cut = s2r(QUESTIONS, BuildRecipe(keep_probability=KEEP_ALL, max_rows=7))
    whole = s2r(QUESTIONS, BuildRecipe(keep_probability=KEEP_ALL))
    assert (len(cut.rows), cut.dropped["max_rows"]) == (7, len(whole.rows) - 7)


def test_keep_probability_zero_keeps_no_question_of_these_rounds():
    recipe = BuildRecipe(keep_probability=(0.0, 1.0, 1.0, 1.0), one_round_fraction=0.0, balance_verdicts=False)
    built = s2r(QUESTIONS, recipe, seed=1)
    assert min(row.rounds for row in built.rows) == 2
    assert built.dropped["not_drawn"] == 10


@pytest.mark.parametrize("own", [True, False])
def test_untrue_verifications_of_the_policy_are_never_taken(own: bool):
    lie = "Wait, let me recheck my solution.\nfine by me\nTherefore, the answer is correct."
    truth = "Wait, let me recheck my solution.\nlooked twice\nTherefore, the answer is correct."
    answers = [answer(f"\\boxed{{9}}\n{lie}", "8"), answer(f"\\boxed{{8}}\n{truth}", "8")]
    asked = AnsweredQuestion("3", "Calculate 3+5.", None, "unknown", answers)
    recipe = BuildRecipe(keep_probability=KEEP_ALL, own_verifications=own, balance_verdicts=False)
    built = s2r([asked], recipe)
    assert not built.rows
    assert built.dropped == {"too_few_wrong_attempts" if own else "no_true_verification": 1}


@pytest.mark.parametrize("style", VerificationStyle)
def test_styles_choose_the_template(style: VerificationStyle):
    recipe = BuildRecipe(
        keep_probability=KEEP_ALL, own_verifications=False, styles={style: 1.0}, balance_verdicts=False
    )
    text = "\n".join(row.text for row in s2r([question(20, 2)], recipe).rows)
    assert ("-5=" in text) == (style is VerificationStyle.CONFIRMATIVE)


def test_distilled_rows_are_of_right_teacher_answers_only():
    asked = [question(number, wrong=0 if number % 2 else 8) for number in range(20)]
    asked.append(question(50, wrong=0, domain="nowhere"))
    recipe = TeachRecipe(rounds_weights=(0.4, 0.4, 0.2), copies=3, solve_only_fraction=0.25)
    built = build(DistillBuilder(recipe, 4), asked)
    for row in built.rows:
        assert_sound(row)
    assert {row.question_id for row in built.rows} == {str(number) for number in range(1, 20, 2)}
    assert built.dropped == {"no_correct_attempt": 10, "unknown_domain": 1}
    assert sum(len(row.segments) == 1 for row in built.rows) == round(0.25 * 30)
    assert build(DistillBuilder(recipe, 4), asked) == built != build(DistillBuilder(recipe, 5), asked)
