"""Snapshots and the leases of their builders."""

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import SnapshotRow
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
