"""`distill`: full-format trajectories out of verified teacher answers, for SFT-0."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from services.pool.builders.answers import AnsweredQuestion
from services.pool.builders.builder import Candidate, Choice, Kinds, nothing_replayed
from services.pool.builders.lots import Lots, draw, generator_of, lowest
from services.pool.builders.rows import SCHEMA, Row, RowSegment, row_of
from shared.contracts.recipe import TeachRecipe
from shared.trajectories.build import DropReason, TeacherQuestion, teacher_trajectory
from shared.trajectories.domains import DOMAINS
from shared.trajectories.segments import RETRY_PHRASE

UNKNOWN_DOMAIN = "unknown_domain"
WHOLE, SOLVE_ONLY = range(2)


@dataclass(frozen=True, slots=True)
class DistillBuilder:
    """Trajectories of every question that the teacher answered right, by the templates of its domain."""

    recipe: TeachRecipe
    seed: int
    dropped: Counter[str] = field(default_factory=Counter)
    schema: pa.Schema = SCHEMA

    def candidates(self, item: AnsweredQuestion) -> Iterator[Candidate]:
        """Each trajectory whole and, where some are to be cut, right behind it cut after the right attempt."""
        right = next((text for answer in item.answers if (text := answer.right_attempt()) is not None), None)
        if right is None or item.domain not in DOMAINS:
            self.dropped[DropReason.NO_CORRECT_ATTEMPT if right is None else UNKNOWN_DOMAIN] += 1
            return
        question, rng = TeacherQuestion(item.question, right), generator_of(self.seed, item.id)
        round_counts = range(1, len(self.recipe.rounds_weights) + 1)
        for rounds in rng.choices(round_counts, self.recipe.rounds_weights, k=self.recipe.copies):
            built = teacher_trajectory(question, DOMAINS[item.domain], rounds, rng)
            if isinstance(built, DropReason):
                self.dropped[built] += 1
                continue
            row, lot = row_of(item.id, item.question, built), draw(rng)
            yield Candidate(row.record(), WHOLE, lot)
            if self.recipe.solve_only_fraction:
                yield Candidate(_solve_only(row).record(), SOLVE_ONLY, lot)

    def choose(self, kinds: Kinds, lots: Lots, replayable: int) -> Choice:
        """Every trajectory once, the recipe's share of them cut."""
        whole = kinds == WHOLE
        cut = lowest(kinds == SOLVE_ONLY, lots, round(self.recipe.solve_only_fraction * int(whole.sum())))
        return Choice(cut | (whole & ~np.roll(cut, -1)), nothing_replayed(replayable))

    def complete(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """As they are."""
        return batch


def _solve_only(row: Row) -> Row:
    """A row's right attempt alone, cut after it: the first solve of what a teacher that never slips would write."""
    solve, _ = row.segments[-2:]
    text = row.text[solve.start : solve.end]
    body = text.removeprefix(f"\n{RETRY_PHRASE}\n")
    segment = RowSegment(0, len(body), solve.kind, trained=True)
    return Row(row.question_id, row.question, body, (segment,))
