"""Questions come in: item by item, in chunks of one transaction each, so that a bad item stops nothing."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.pool import identity
from services.pool.hints import Hints
from services.pool.repository import campaigns, counters, questions
from services.pool.repository.questions import Move, NewQuestion
from services.pool.router import Standing
from services.pool.service import items
from services.pool.service.lines import Item
from shared.contracts.questions import (
    IngestReport,
    PoolCounts,
    Question,
    QuestionIn,
    QuestionState,
    Refusal,
    RefusalReason,
    Split,
)
from shared.contracts.recipe import RouterRecipe
from shared.db import Database
from shared.errors import NotFoundError

CHUNK_QUESTIONS = 400
CHUNK_BYTES = 4_000_000
MAX_LISTED_REFUSALS = 1000


class _Report:
    """The exact counts, and the first refusals."""

    def __init__(self) -> None:
        self.accepted = 0
        self.duplicate = 0
        self.refused: Counter[RefusalReason] = Counter()
        self._listed: list[Refusal] = []

    def refuse(self, refusals: Sequence[Refusal]) -> None:
        self.refused.update(refusal.reason for refusal in refusals)
        self._listed.extend(refusals[: MAX_LISTED_REFUSALS - len(self._listed)])

    def contract(self) -> IngestReport:
        refusals = tuple(sorted(self._listed, key=lambda refusal: refusal.line))
        refused = self.refused.total()
        return IngestReport(accepted=self.accepted, duplicate=self.duplicate, refused=refused, refusals=refusals)


class Questions:
    """Ingest and reading of questions."""

    def __init__(self, database: Database, hints: Hints) -> None:
        self._database = database
        self._hints = hints

    async def put_campaign(self, campaign_id: UUID, name: str, router: RouterRecipe) -> None:
        """Register a campaign, or change how its questions are routed from now on."""
        async with self._database.transaction() as session:
            await campaigns.put(session, campaign_id, name, router)

    async def require_campaign(self, campaign_id: UUID) -> None:
        """Raises NotFoundError unless the campaign is registered."""
        async with self._database.transaction() as session:
            if not await campaigns.exists(session, campaign_id):
                raise NotFoundError("campaign", campaign_id)

    async def ingest(self, campaign_id: UUID, stream: AsyncIterator[Item]) -> IngestReport:
        """Store every good item of the stream and refuse every bad one by its number."""
        report = _Report()
        chunk: list[tuple[int, QuestionIn]] = []
        refusals: list[Refusal] = []
        size_bytes = 0
        async for item in stream:
            judged = items.read(item)
            if isinstance(judged, Refusal):
                refusals.append(judged)
            else:
                chunk.append((item.line, judged))
                size_bytes += len(item.data or b"")
            if len(chunk) + len(refusals) >= CHUNK_QUESTIONS or size_bytes >= CHUNK_BYTES:
                await self._store(campaign_id, chunk, refusals, report)
                chunk, refusals, size_bytes = [], [], 0
        if chunk or refusals:
            await self._store(campaign_id, chunk, refusals, report)
        if report.accepted:
            self._hints.advance(campaign_id)
        return report.contract()

    async def _store(
        self, campaign_id: UUID, chunk: Sequence[tuple[int, QuestionIn]], refusals: Sequence[Refusal], report: _Report
    ) -> None:
        """One chunk in one transaction: its eval questions first, so that they win over equal train questions."""
        new = {
            line: NewQuestion(
                identity.question_id(campaign_id, question), identity.text_hash(question.question), question
            )
            for line, question in chunk
        }
        deltas = counters.Deltas()
        async with self._database.transaction() as session:
            await campaigns.lock_ingest(session, campaign_id)
            evals = _distinct([item for item in new.values() if item.question.split is Split.EVAL])
            inserted_evals = await questions.insert_new(session, campaign_id, evals)
            await self._quarantine_leaked(session, campaign_id, [item.text_hash for item in evals], deltas)
            trains = {line: item for line, item in new.items() if item.question.split is Split.TRAIN}
            leaked = await questions.eval_hashes(session, campaign_id, [item.text_hash for item in trains.values()])
            leaks = {line: _leak(line) for line, item in trains.items() if item.text_hash in leaked}
            clean = _distinct([item for item in trains.values() if item.text_hash not in leaked])
            inserted_trains = await questions.insert_new(session, campaign_id, clean)
            accepted = len(inserted_evals) + len(inserted_trains)
            known = {line: item for line, item in new.items() if line not in leaks}
            conflicts = await _conflicts(session, known) if accepted < len(known) else []
            refused = (*refusals, *leaks.values(), *conflicts)
            for split, inserted in ((Split.EVAL, inserted_evals), (Split.TRAIN, inserted_trains)):
                for name in Standing(split, QuestionState.CANDIDATE).counted_as():
                    deltas.add(campaign_id, name, len(inserted))
            for refusal in refused:
                deltas.add(campaign_id, f"refused:{refusal.reason}")
            await deltas.write(session)
        report.accepted += accepted
        report.duplicate += len(known) - len(conflicts) - accepted
        report.refuse(refused)

    async def _quarantine_leaked(
        self, session: AsyncSession, campaign_id: UUID, hashes: Sequence[bytes], deltas: counters.Deltas
    ) -> None:
        """Train questions that equal an eval question that has just come in are left out from now on."""
        rows = await questions.lock_train_with_hashes(session, campaign_id, hashes) if hashes else ()
        moves = []
        for row in rows:
            before = questions.standing(row)
            moves.append(Move(row.id, before, before.quarantined(), RefusalReason.EVAL_LEAK, None))
        await questions.move(session, campaign_id, moves, deltas)

    async def get(self, question_id: UUID) -> Question:
        """One question. Raises: NotFoundError."""
        async with self._database.transaction() as session:
            row = (await questions.by_ids(session, [question_id])).get(question_id)
            if row is None:
                raise NotFoundError("question", question_id)
            return questions.to_contract(row)

    async def counts(self, campaign_id: UUID) -> PoolCounts:
        """The counters of a campaign. States, levels and `tiny` count train questions; `train` counts usable ones."""
        async with self._database.transaction() as session:
            if not await campaigns.exists(session, campaign_id):
                raise NotFoundError("campaign", campaign_id)
            values = await counters.of_scope(session, campaign_id)
        states = {str(state): values.get(f"state:{state}", 0) for state in QuestionState}
        levels = {level: values[f"level:{level}"] for level in range(1, 6) if values.get(f"level:{level}")}
        plain = {name: values.get(name, 0) for name in ("tiny", "train", "eval", "groups", "responses")}
        return PoolCounts(**states, **plain, levels=levels)


def _distinct(new: Sequence[NewQuestion]) -> list[NewQuestion]:
    """The first of each id, in the order they came."""
    first: dict[UUID, NewQuestion] = {}
    for item in new:
        first.setdefault(item.id, item)
    return list(first.values())


async def _conflicts(session: AsyncSession, known: Mapping[int, NewQuestion]) -> list[Refusal]:
    """Refusals of items whose question is stored, by now, with another answer: the one that came first stays."""
    answers = await questions.answers(session, [item.id for item in known.values()])
    return [
        _conflict(line, answers[item.id])
        for line, item in known.items()
        if identity.normal_text(item.question.answer) != identity.normal_text(answers[item.id])
    ]


def _conflict(line: int, stored: str) -> Refusal:
    return Refusal(
        line=line,
        field="answer",
        reason=RefusalReason.CONFLICT,
        message=f"Item {line} is stored already with the answer '{items.shown(stored)}', and a stored question never changes; "
        "leave the item out, or start another campaign if the stored answer is wrong.",
    )


def _leak(line: int) -> Refusal:
    return Refusal(
        line=line,
        field="question",
        reason=RefusalReason.EVAL_LEAK,
        message=f"Item {line} has the text of an eval question, and those never train; leave it out.",
    )
