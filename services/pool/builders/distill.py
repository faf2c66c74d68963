"""`distill`: full-format trajectories out of verified teacher answers, for SFT-0."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random

from services.pool.builders.answers import AnsweredQuestion
from services.pool.builders.rows import Built, Row, RowSegment, row_of
from shared.contracts.recipe import TeachRecipe
from shared.trajectories.build import DropReason, TeacherMix, TeacherQuestion, teacher_trajectories
from shared.trajectories.domains import DOMAINS
from shared.trajectories.segments import RETRY_PHRASE

UNKNOWN_DOMAIN = "unknown_domain"


def build(questions: Sequence[AnsweredQuestion], recipe: TeachRecipe, seed: int) -> Built:
    """Trajectories of every question that the teacher answered right, by the templates of its domain."""
    mix = TeacherMix(recipe.rounds_weights, recipe.copies)
    dropped: Counter[str] = Counter()
    by_domain: dict[str, list[tuple[AnsweredQuestion, str]]] = defaultdict(list)
    for question in questions:
        right = next((text for answer in question.answers if (text := answer.right_attempt()) is not None), None)
        if right is None:
            dropped[DropReason.NO_CORRECT_ATTEMPT] += 1
        elif question.domain not in DOMAINS:
            dropped[UNKNOWN_DOMAIN] += 1
        else:
            by_domain[question.domain].append((question, right))
    rows: list[Row] = []
    for name, answered in sorted(by_domain.items()):
        teacher = [TeacherQuestion(question.question, right) for question, right in answered]
        built = teacher_trajectories(teacher, DOMAINS[name], mix, seed)
        dropped.update({str(reason): count for reason, count in built.dropped.items()})
        rows.extend(row_of(answered[at][0].id, answered[at][0].question, example) for at, example in built.examples)
    rng = Random(seed)
    rng.shuffle(rows)
    solve_only = round(recipe.solve_only_fraction * len(rows))
    return Built([*map(_solve_only, rows[:solve_only]), *rows[solve_only:]], dropped)


def _solve_only(row: Row) -> Row:
    """A row's right attempt alone, cut after it: the first solve of what a teacher that never slips would write."""
    solve, _ = row.segments[-2:]
    text = row.text[solve.start : solve.end]
    body = text.removeprefix(f"\n{RETRY_PHRASE}\n")
    segment = RowSegment(0, len(body), solve.kind, trained=True)
    return Row(row.question_id, row.question, body, (segment,))
