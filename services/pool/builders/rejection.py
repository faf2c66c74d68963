"""`rejection`: right answers as they are, at most so many a question: the policy's own (rejection sampling), or a teacher's.

The mask trains what was judged right: in a right answer that mended an attempt, the attempt is not trained, and neither is an untrue
verification.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from services.pool.builders.answers import Answer, AnsweredQuestion, tiles
from services.pool.builders.builder import Candidate, Choice, Kinds, nothing_replayed
from services.pool.builders.lots import Lots, Mask, draw, generator_of, lowest, redrawn
from services.pool.builders.rows import SCHEMA, Row, RowSegment
from shared.contracts.generation import FinishReason
from shared.contracts.snapshots import RejectionRecipe
from shared.contracts.verdicts import SegmentKind, VerdictOutcome
from shared.trajectories.build import DropReason

NOT_WHOLE = "not_whole"
WITHOUT_LEVEL = 0
LIMIT_LOT = 1


@dataclass(frozen=True, slots=True)
class RejectionBuilder:
    """Right answers; a candidate's kind is the level of its question."""

    recipe: RejectionRecipe
    seed: int
    dropped: Counter[str] = field(default_factory=Counter)
    schema: pa.Schema = SCHEMA

    def candidates(self, item: AnsweredQuestion) -> Iterator[Candidate]:
        """Right answers with different texts, drawn at random where there are too many."""
        right = [answer for answer in item.answers if answer.outcome is VerdictOutcome.CORRECT]
        whole = list({answer.text: answer for answer in right if _is_whole(answer)}.values())
        if not whole:
            self.dropped[NOT_WHOLE if right else DropReason.NO_CORRECT_ATTEMPT] += 1
            return
        rng = generator_of(self.seed, item.id)
        for answer in rng.sample(whole, min(len(whole), self.recipe.max_per_question)):
            yield Candidate(_row(item, answer).record(), item.level or WITHOUT_LEVEL, draw(rng))

    def choose(self, kinds: Kinds, lots: Lots, replayable: int) -> Choice:
        """All of them, or as equally many of each level as asked, up to the limit."""
        chosen = np.ones(len(kinds), dtype=np.bool_)
        if self.recipe.balance_levels:
            chosen = self._balanced(kinds, lots)
            self._count("level_balance", len(kinds) - int(chosen.sum()))
        kept = lowest(chosen, redrawn(lots, LIMIT_LOT), self.recipe.max_rows or len(kinds))
        self._count("max_rows", int(chosen.sum()) - int(kept.sum()))
        return Choice(kept, nothing_replayed(replayable))

    def complete(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """As they are."""
        return batch

    def _balanced(self, kinds: Kinds, lots: Lots) -> Mask:
        levels, counts = np.unique(kinds, return_counts=True)
        each = level_share([int(count) for count in counts], self.recipe.max_rows)
        chosen = np.zeros(len(kinds), dtype=np.bool_)
        for level in levels:
            chosen |= lowest(kinds == level, lots, each)
        return chosen

    def _count(self, reason: str, rows: int) -> None:
        if rows:
            self.dropped[reason] += rows


def level_share(counts: list[int], max_rows: int) -> int:
    """How many rows each level may have: the fewest for which all have at least `max_rows`; without it, the rarest's.

    A level that has less gives all it has, and what is missing is shared by the others.
    """
    if not counts or not max_rows:
        return min(counts, default=0)
    left, rising = max_rows, sorted(counts)
    for position, count in enumerate(rising):
        levels = len(rising) - position
        if count * levels >= left:
            return -(-left // levels)
        left -= count
    return rising[-1]


def _is_whole(answer: Answer) -> bool:
    return answer.finish_reason is not FinishReason.LENGTH and tiles(answer.segments, answer.text)


def _row(item: AnsweredQuestion, answer: Answer) -> Row:
    segments = tuple(
        RowSegment(
            segment.start,
            segment.end,
            segment.kind,
            trained=segment.kind is not SegmentKind.OBSERVE and (segment.reward or 0.0) > 0,
        )
        for segment in answer.segments
    )
    return Row(item.id, item.question, answer.text, segments)
