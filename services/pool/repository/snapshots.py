"""Snapshots and the leases of their builders."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import QuestionRow, SnapshotQuestionRow, SnapshotRow
from services.pool.router import UNUSABLE_STATES
from shared.contracts.snapshots import SnapshotIn, SnapshotStatus


async def insert_new(session: AsyncSession, snapshot_id: UUID, request_hash: str, request: SnapshotIn) -> bool:
    """Insert the snapshot; False when its key is taken."""
    statement = (
        insert(SnapshotRow)
        .values(
            id=snapshot_id,
            campaign_id=request.campaign_id,
            key=request.key,
            request=request.model_dump(mode="json"),
            request_hash=request_hash,
        )
        .on_conflict_do_nothing()
        .returning(SnapshotRow.id)
    )
    return (await session.execute(statement)).scalar_one_or_none() is not None


async def get(session: AsyncSession, snapshot_id: UUID) -> SnapshotRow | None:
    """One snapshot."""
    return await session.get(SnapshotRow, snapshot_id)


async def lease_next(session: AsyncSession, lease_s: float) -> SnapshotRow | None:
    """The oldest snapshot to build that nobody builds, leased under a new token; each lease is an attempt."""
    statement = (
        select(SnapshotRow)
        .where(
            SnapshotRow.status == SnapshotStatus.BUILDING,
            or_(SnapshotRow.lease_expires_at.is_(None), SnapshotRow.lease_expires_at <= func.now()),
        )
        .order_by(SnapshotRow.created_at, SnapshotRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = (await session.execute(statement)).scalar_one_or_none()
    if row is None:
        return None
    leased = (
        update(SnapshotRow)
        .where(SnapshotRow.id == row.id)
        .values(
            lease_token=uuid4(),
            lease_expires_at=func.now() + timedelta(seconds=lease_s),
            attempts=SnapshotRow.attempts + 1,
        )
        .returning(SnapshotRow)
        .execution_options(populate_existing=True)
    )
    return (await session.execute(leased)).scalar_one()


async def extend(session: AsyncSession, snapshot_id: UUID, token: UUID, lease_s: float) -> bool:
    """Extend the builder's lease; False when it was lost."""
    statement = (
        update(SnapshotRow)
        .where(SnapshotRow.id == snapshot_id, SnapshotRow.lease_token == token)
        .values(lease_expires_at=func.now() + timedelta(seconds=lease_s))
        .returning(SnapshotRow.id)
    )
    return (await session.execute(statement)).scalar_one_or_none() is not None


async def finish(session: AsyncSession, snapshot_id: UUID, token: UUID, values: Mapping[str, object]) -> bool:
    """Write the result, unless another builder has the lease; returns whether it was written."""
    statement = (
        update(SnapshotRow)
        .where(
            SnapshotRow.id == snapshot_id,
            SnapshotRow.lease_token == token,
            SnapshotRow.status == SnapshotStatus.BUILDING,
        )
        .values(**values)
        .returning(SnapshotRow.id)
    )
    return (await session.execute(statement)).scalar_one_or_none() is not None


async def give_back(session: AsyncSession, snapshot_id: UUID, token: UUID) -> None:
    """End the builder's lease; what it did counts as no attempt."""
    statement = (
        update(SnapshotRow)
        .where(SnapshotRow.id == snapshot_id, SnapshotRow.lease_token == token)
        .values(lease_token=None, lease_expires_at=None, attempts=SnapshotRow.attempts - 1)
    )
    await session.execute(statement)


async def put_questions(session: AsyncSession, snapshot_id: UUID, question_ids: Iterable[str | UUID]) -> None:
    """Write of which questions the snapshot has rows, by COPY; each id once."""
    await session.execute(delete(SnapshotQuestionRow).where(SnapshotQuestionRow.snapshot_id == snapshot_id))
    connection = await (await session.connection()).get_raw_connection()
    driver: Any = connection.driver_connection
    await driver.copy_records_to_table(
        SnapshotQuestionRow.__tablename__,
        schema_name=SnapshotQuestionRow.metadata.schema,
        columns=["snapshot_id", "question_id"],
        records=((snapshot_id, question_id) for question_id in question_ids),
    )


async def count_unusable(session: AsyncSession, snapshot_id: UUID) -> int:
    """How many of its questions are quarantined or retracted; whether one is stays settled until the transaction ends.

    The questions are locked against that, so that whoever retracts one either is seen here or sees the snapshot.
    """
    members = select(SnapshotQuestionRow.question_id).where(SnapshotQuestionRow.snapshot_id == snapshot_id)
    settled = (
        select(QuestionRow.state)
        .where(QuestionRow.id.in_(members))
        .order_by(QuestionRow.id)
        .with_for_update(read=True)
        .cte()  # as a subquery it would be filtered before anything is locked
    )
    statement = select(func.count()).select_from(settled).where(settled.c.state.in_(UNUSABLE_STATES))
    return (await session.execute(statement)).scalar_one()
