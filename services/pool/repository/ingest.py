"""Questions on their way in: what is stored of a chunk already, and COPY for the rest.

Everything happens on the driver's own connection, in the session's transaction, under the campaign's ingest lock: what is not
found cannot come in beside us, so that COPY needs no staging.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.questions import QuestionIn, QuestionKind, QuestionState, Split

_COLUMNS = ("id", "campaign_id", "text_hash", "text", "answer", "solution", "kind", "split", "domain", "source")
_STORED = """
    SELECT id, text_hash, kind, split, state, answer FROM pool.questions WHERE campaign_id = $1 AND text_hash = ANY($2)
"""
_RUNS = """
    SELECT DISTINCT g.question_id, b.run_id AS id FROM pool.groups g
    JOIN pool.batch_groups bg ON bg.group_id = g.id JOIN pool.batches b ON b.id = bg.batch_id
    WHERE g.question_id = ANY($1) AND b.state IN ('leased', 'acknowledged') ORDER BY 1, 2
"""
_SNAPSHOTS = """
    SELECT question_id, snapshot_id AS id FROM pool.snapshot_questions WHERE question_id = ANY($1) ORDER BY 1, 2
"""


class NewQuestion(NamedTuple):
    """A good item of a submission, with its identity."""

    line: int
    id: UUID
    text_hash: bytes
    question: QuestionIn


class StoredQuestion(NamedTuple):
    """What of a stored question decides about others."""

    id: UUID
    text_hash: bytes
    kind: QuestionKind
    split: Split
    state: QuestionState
    answer: str


class Touched(NamedTuple):
    """Where a question has been used."""

    runs: tuple[UUID, ...]
    snapshots: tuple[UUID, ...]


def stored_question(row: Any) -> StoredQuestion:
    """The first columns of a row of `pool.questions`."""
    return StoredQuestion(row[0], row[1], QuestionKind(row[2]), Split(row[3]), QuestionState(row[4]), row[5])


async def driver(session: AsyncSession) -> Any:
    """asyncpg's connection of a session whose transaction has begun."""
    connection = await (await session.connection()).get_raw_connection()
    return connection.driver_connection


async def stored(session: AsyncSession, campaign_id: UUID, hashes: Collection[bytes]) -> list[StoredQuestion]:
    """The questions with one of these normalised texts."""
    rows = await (await driver(session)).fetch(_STORED, campaign_id, list(hashes))
    return [stored_question(row) for row in rows]


async def copy_new(session: AsyncSession, campaign_id: UUID, new: Sequence[NewQuestion]) -> None:
    """Store questions that are not there, in this order."""
    if not new:
        return
    records = [
        (
            item.id,
            campaign_id,
            item.text_hash,
            item.question.question,
            item.question.answer,
            item.question.solution,
            item.question.kind,
            item.question.split,
            item.question.domain,
            item.question.source,
        )
        for item in new
    ]
    connection = await driver(session)
    await connection.copy_records_to_table("questions", schema_name="pool", columns=_COLUMNS, records=records)


async def touched(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, Touched]:
    """The runs that hold or acknowledged a batch with each question, and the snapshots with rows of it."""
    connection = await driver(session)
    runs, snapshots = await connection.fetch(_RUNS, list(ids)), await connection.fetch(_SNAPSHOTS, list(ids))
    return {id_: Touched(_of(runs, id_), _of(snapshots, id_)) for id_ in ids}


def _of(rows: Sequence[Any], question_id: UUID) -> tuple[UUID, ...]:
    return tuple(row["id"] for row in rows if row["question_id"] == question_id)
