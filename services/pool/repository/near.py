"""Where near texts meet: rows of band hashes, written by COPY and looked up by hash."""

from collections.abc import AsyncIterator, Sequence
from io import BytesIO
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import CampaignRow, QuestionRow
from services.pool.repository.ingest import StoredQuestion, driver, stored_question

# A hash that many questions share says little: a pair that is near shares others.
MAX_PER_HASH = 16
TEXTS_AT_ONCE = 64
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END = b"\xff\xff"
_ROW = np.dtype([("fields", ">i2"), ("hash_size", ">i4"), ("hash", ">i8"), ("id_size", ">i4"), ("id", "V16")])
_MATCHES = f"""
    SELECT wanted.hash, found.question_id FROM unnest($1::bigint[]) AS wanted(hash)
    CROSS JOIN LATERAL (SELECT question_id FROM pool.near_bands b WHERE b.hash = wanted.hash LIMIT {MAX_PER_HASH}) found
"""  # noqa: S608 (a constant)
_TEXTS = "SELECT id, text_hash, kind, split, state, answer, text FROM pool.questions WHERE id = ANY($1)"


class StoredText(NamedTuple):
    """A stored question and its text."""

    question: StoredQuestion
    text: str


async def add(session: AsyncSession, ids: Sequence[UUID], bands: NDArray[np.int64]) -> None:
    """Store the band hashes of questions, (N, bands); in the order of the hashes, so that an index page is written once."""
    if not ids:
        return
    rows = np.zeros(bands.size, _ROW)
    order = np.argsort(bands, axis=None)
    rows["fields"], rows["hash_size"], rows["id_size"] = 2, 8, 16
    rows["hash"] = bands.reshape(-1)[order]
    packed = np.frombuffer(b"".join(id_.bytes for id_ in ids), "V16")
    rows["id"] = packed[order // bands.shape[1]]
    source = BytesIO(b"".join((_COPY_HEADER, rows.tobytes(), _COPY_END)))
    await (await driver(session)).copy_to_table("near_bands", schema_name="pool", source=source, format="binary")


async def matches(session: AsyncSession, hashes: NDArray[np.int64]) -> list[tuple[int, UUID]]:
    """(hash, question) of stored questions that share one of these hashes, up to `MAX_PER_HASH` a hash."""
    rows = await (await driver(session)).fetch(_MATCHES, np.unique(hashes).tolist())
    return [(row[0], row[1]) for row in rows]


async def texts(session: AsyncSession, ids: Sequence[UUID]) -> AsyncIterator[list[StoredText]]:
    """These questions with their texts, a few at a time."""
    connection = await driver(session)
    for start in range(0, len(ids), TEXTS_AT_ONCE):
        rows = await connection.fetch(_TEXTS, ids[start : start + TEXTS_AT_ONCE])
        yield [StoredText(stored_question(row), row[6]) for row in rows]


async def fall_behind(session: AsyncSession, campaign_id: UUID) -> None:
    """What comes in from now on has no bands; those are added when the campaign compares near texts again."""
    last = select(func.coalesce(func.max(QuestionRow.position), 0)).where(QuestionRow.campaign_id == campaign_id)
    await session.execute(
        update(CampaignRow)
        .where(CampaignRow.id == campaign_id, CampaignRow.near_position.is_(None))
        .values(near_position=last.scalar_subquery())
        .execution_options(synchronize_session=False)
    )


async def is_behind(session: AsyncSession, campaign_id: UUID) -> bool:
    """Whether questions of the campaign may have no bands; settled while its ingest lock is held."""
    statement = select(CampaignRow.near_position).where(CampaignRow.id == campaign_id)
    return (await session.execute(statement)).scalar_one() is not None


async def behind(session: AsyncSession, campaign_id: UUID, limit: int) -> Sequence[Any]:
    """The next (position, id, text) without bands."""
    position = select(CampaignRow.near_position).where(CampaignRow.id == campaign_id).scalar_subquery()
    statement = (
        select(QuestionRow.position, QuestionRow.id, QuestionRow.text)
        .where(QuestionRow.campaign_id == campaign_id, QuestionRow.position > position)
        .order_by(QuestionRow.position)
        .limit(limit)
    )
    return (await session.execute(statement)).all()


async def set_position(session: AsyncSession, campaign_id: UUID, position: int | None) -> None:
    """Behind which position bands are missing; None when they are complete."""
    await session.execute(
        update(CampaignRow)
        .where(CampaignRow.id == campaign_id)
        .values(near_position=position)
        .execution_options(synchronize_session=False)
    )
