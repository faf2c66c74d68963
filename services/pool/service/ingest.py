"""Questions come in: in chunks of one transaction each, so that a bad item stops nothing; one chunk is judged while another is stored."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool import identity
from services.pool.hints import Hints
from services.pool.repository import batches, campaigns, counters, ingest, near, questions, retraction
from services.pool.repository.ingest import NewQuestion
from services.pool.repository.questions import Move
from services.pool.router import Standing
from services.pool.service import neighbours
from services.pool.service.blocks import Block, chunks
from services.pool.service.bodies import BrokenStreamError
from services.pool.service.decide import Decision, Leaked, Near, decide
from shared.contracts.questions import (
    IngestReport,
    NearDuplicate,
    Quarantine,
    QuestionState,
    Refusal,
    RefusalReason,
    Split,
)
from shared.db import Database
from shared.errors import NotFoundError

MAX_LISTED = 1000
CATCH_UP_QUESTIONS = 2000


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Judged items; `bands` (N, bands) of the good ones, None when the campaign compares exact texts only."""

    new: list[NewQuestion]
    refusals: list[Refusal]
    bands: NDArray[np.int64] | None


class _Report:
    """The exact counts, and the first of each list."""

    def __init__(self) -> None:
        self.accepted = self.duplicate = self.near_duplicate = self.quarantined = 0
        self._refused: Counter[RefusalReason] = Counter()
        self._refusals: list[Refusal] = []
        self._near_duplicates: list[NearDuplicate] = []
        self._quarantines: list[Quarantine] = []

    def add(self, decision: Decision, refusals: Sequence[Refusal], quarantines: Sequence[Quarantine]) -> None:
        """One stored chunk."""
        self.accepted += len(decision.accepted)
        self.duplicate += decision.duplicates + len(decision.near_duplicates)
        self.near_duplicate += len(decision.near_duplicates)
        self.quarantined += len(quarantines)
        self._refused.update(refusal.reason for refusal in refusals)
        self._refusals.extend(refusals[: MAX_LISTED - len(self._refusals)])
        self._near_duplicates.extend(decision.near_duplicates[: MAX_LISTED - len(self._near_duplicates)])
        self._quarantines.extend(quarantines[: MAX_LISTED - len(self._quarantines)])

    def broken(self, error: BrokenStreamError) -> BrokenStreamError:
        """The error of a stream that ended half-way, with what became of its first half."""
        before = (
            f" What came before is done: {self.accepted:,} accepted, {self.duplicate:,} known, {self._refused.total():,} refused; "
            "sending all of it again changes nothing about those."
        )
        is_something = self.accepted or self.duplicate or self._refused
        return BrokenStreamError(error.code, error.message + (before if is_something else ""), error.status)

    def contract(self) -> IngestReport:
        return IngestReport(
            accepted=self.accepted,
            duplicate=self.duplicate,
            refused=self._refused.total(),
            near_duplicate=self.near_duplicate,
            quarantined=self.quarantined,
            refusals=tuple(sorted(self._refusals, key=lambda refusal: refusal.line)),
            near_duplicates=tuple(self._near_duplicates),
            quarantines=tuple(self._quarantines),
        )


class Ingest:
    """Takes submissions."""

    def __init__(self, database: Database, hints: Hints) -> None:
        self._database = database
        self._hints = hints
        self._turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def threshold(self, campaign_id: UUID) -> float:
        """From which similarity on texts are near, 0 for none. Raises: NotFoundError unless the campaign is registered."""
        async with self._database.transaction() as session:
            campaign = await campaigns.get(session, campaign_id)
            if campaign is None:
                raise NotFoundError("campaign", campaign_id)
            return campaign.near_duplicate_threshold

    async def take(self, campaign_id: UUID, threshold: float, stream: AsyncIterator[Block]) -> IngestReport:
        """Store every good item of the stream and refuse every bad one by its number.

        Raises: BrokenStreamError, when the stream cannot be read to its end; its sentence says what became of the rest.
        """
        report = _Report()
        storing: asyncio.Task[None] | None = None
        try:
            async for blocks in chunks(stream):
                chunk = await asyncio.to_thread(_judge, campaign_id, blocks, near_texts=threshold > 0)
                if storing is not None:
                    await storing
                storing = asyncio.create_task(self._store(campaign_id, threshold, chunk, report))
            if storing is not None:
                await storing
        except BrokenStreamError as error:
            if storing is not None:
                await storing
            raise report.broken(error) from error
        finally:
            if storing is not None and not storing.done():
                storing.cancel()
                await asyncio.wait([storing])
            if report.accepted or report.quarantined:
                self._hints.advance(campaign_id)
        return report.contract()

    async def _store(self, campaign_id: UUID, threshold: float, chunk: _Chunk, report: _Report) -> None:
        """One chunk in one transaction. Who waits for another submission of this process holds no connection."""
        async with self._turns.setdefault(campaign_id, asyncio.Lock()):
            while not await self._try_to_store(campaign_id, threshold, chunk, report):
                await self._catch_up(campaign_id)

    async def _try_to_store(self, campaign_id: UUID, threshold: float, chunk: _Chunk, report: _Report) -> bool:
        """False, and nothing is done, when stored questions have no bands yet that the chunk has to be compared with."""
        deltas = counters.Deltas()
        async with self._database.transaction() as session:
            await campaigns.lock_ingest(session, campaign_id)
            if chunk.bands is not None and await near.is_behind(session, campaign_id):
                return False
            if chunk.bands is None and chunk.new:
                await near.fall_behind(session, campaign_id)
            stored = await ingest.stored(session, campaign_id, {item.text_hash for item in chunk.new})
            known = {question.id for question in stored}
            found: dict[int, list[Near]] = {}
            if chunk.bands is not None:
                fresh = [at for at, item in enumerate(chunk.new) if item.id not in known]
                items = [chunk.new[at] for at in fresh]
                found = await neighbours.find(session, items, chunk.bands[fresh], threshold)
            decision = decide(chunk.new, stored, found)
            accepted = list(decision.accepted.values())
            await ingest.copy_new(session, campaign_id, accepted)
            if chunk.bands is not None:
                rows = {item.line: at for at, item in enumerate(chunk.new)}
                bands = chunk.bands[[rows[item.line] for item in accepted]]
                await near.add(session, [item.id for item in accepted], bands)
            quarantines = await _quarantine(session, campaign_id, list(decision.leaked.values()), deltas)
            refusals = (*chunk.refusals, *decision.refusals)
            _count(campaign_id, decision, refusals, deltas)
            await deltas.write(session)
        report.add(decision, refusals, quarantines)
        return True

    async def _catch_up(self, campaign_id: UUID) -> None:
        """Give bands to the questions that came in while the campaign compared exact texts only; some in a transaction."""
        while True:
            async with self._database.transaction() as session:
                await campaigns.lock_ingest(session, campaign_id)
                if not await near.is_behind(session, campaign_id):
                    return
                rows = await near.behind(session, campaign_id, CATCH_UP_QUESTIONS)
                bands = await asyncio.to_thread(neighbours.bands, campaign_id, [row.text for row in rows])
                await near.add(session, [row.id for row in rows], bands)
                await near.set_position(session, campaign_id, rows[-1].position if rows else None)


def _judge(campaign_id: UUID, blocks: Sequence[Block], *, near_texts: bool) -> _Chunk:
    """Judge the items of a chunk; runs in a thread."""
    new, refusals = [], []
    for line, outcome in (judged for block in blocks for judged in block.judge()):
        if isinstance(outcome, Refusal):
            refusals.append(outcome)
        else:
            new.append(NewQuestion(line, *identity.identify(campaign_id, outcome), outcome))
    bands = neighbours.bands(campaign_id, [item.question.question for item in new]) if near_texts else None
    return _Chunk(new, refusals, bands)


async def _quarantine(
    session: AsyncSession, campaign_id: UUID, leaked: Sequence[Leaked], deltas: counters.Deltas
) -> list[Quarantine]:
    """Train questions that an eval question has just exposed are left out from now on, with their groups that wait."""
    if not leaked:
        return []
    rows = await questions.lock(session, [item.question_id for item in leaked])
    usable = [item for item in leaked if questions.standing(rows[item.question_id]).usable]
    dropped = await retraction.drop_waiting(session, [item.question_id for item in usable], batches.UNUSABLE)
    for order_id in (order_id for order_ids in dropped.values() for order_id in order_ids):
        deltas.add(order_id, f"dropped:{batches.UNUSABLE}")
    moves = []
    for item in usable:
        before = questions.standing(rows[item.question_id])
        moves.append(Move(item.question_id, before, before.quarantined(), RefusalReason.EVAL_LEAK, None))
    await questions.move(session, campaign_id, moves, deltas)
    touched = await ingest.touched(session, [item.question_id for item in usable])
    return [
        Quarantine(
            question_id=item.question_id,
            line=item.line,
            similarity=round(item.similarity, 4),
            runs=touched[item.question_id].runs,
            snapshots=touched[item.question_id].snapshots,
        )
        for item in usable
    ]


def _count(campaign_id: UUID, decision: Decision, refusals: Sequence[Refusal], deltas: counters.Deltas) -> None:
    """The counters of a chunk."""
    splits = Counter(item.question.split for item in decision.accepted.values())
    for split in Split:
        for name in Standing(split, QuestionState.CANDIDATE).counted_as():
            deltas.add(campaign_id, name, splits[split])
    deltas.add(campaign_id, "near_duplicate", len(decision.near_duplicates))
    for refusal in refusals:
        deltas.add(campaign_id, f"refused:{refusal.reason}")
