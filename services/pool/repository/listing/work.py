"""Lists of groups, orders, assignments, batches and snapshots."""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import GROUP_OUTCOME, AssignmentRow, BatchRow, GroupRow, OrderRow, SnapshotRow
from shared.contracts.listing import (
    AssignmentListing,
    BatchListing,
    Consumption,
    GroupListing,
    OrderListing,
    SnapshotListing,
    UnfinishedState,
)

Time = tuple[datetime, UUID]
T = TypeVar("T", OrderRow, BatchRow, SnapshotRow)


async def groups(session: AsyncSession, listing: GroupListing, after: int) -> Sequence[Row[UUID, int]]:
    """(id, sequence) behind a sequence number."""
    statement = select(GroupRow.id, GroupRow.sequence).where(GroupRow.sequence > after)
    for column, value in (
        (GroupRow.order_id, listing.order),
        (GroupRow.question_id, listing.question),
        (GroupRow.policy_id, listing.policy),
        (GROUP_OUTCOME, listing.outcome),
        (GroupRow.consumption, listing.consumption),
        (GroupRow.drop_reason, listing.drop_reason),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if listing.drop_reason is not None:
        statement = statement.where(GroupRow.drop_reason.is_not(None))
    if listing.consumption is Consumption.DROPPED:
        statement = statement.where(GroupRow.drop_reason.is_not(None))
    return (await session.execute(statement.order_by(GroupRow.sequence).limit(listing.limit))).all()


async def orders(session: AsyncSession, listing: OrderListing, after: Time | None) -> Sequence[OrderRow]:
    """Orders behind a place, oldest first."""
    statement = select(OrderRow).where(OrderRow.campaign_id == listing.campaign)
    if listing.state is not None:
        statement = statement.where(OrderRow.state == listing.state)
    if listing.purpose is not None:
        statement = statement.where(OrderRow.purpose == listing.purpose)
    return await _by_time(session, statement, OrderRow, after, listing.limit)


async def assignments(
    session: AsyncSession, order_id: UUID, listing: AssignmentListing, after: int
) -> Sequence[AssignmentRow]:
    """Unfinished or given-up assignments of an order behind a sequence number."""
    state = listing.state
    conditions: list[ColumnElement[bool]] = [AssignmentRow.order_id == order_id, AssignmentRow.sequence > after]
    conditions.append(AssignmentRow.state == state)
    if state is UnfinishedState.OPEN:
        conditions.append(AssignmentRow.available_at.is_not(None))
    elif state is UnfinishedState.LEASED:
        conditions.append(AssignmentRow.available_at > func.now())
    else:
        conditions.append(AssignmentRow.state.in_((UnfinishedState.DEAD, UnfinishedState.WITHDRAWN)))
    if listing.reason is not None:
        conditions.append(AssignmentRow.reason == listing.reason)
    statement = select(AssignmentRow).where(*conditions).order_by(AssignmentRow.sequence).limit(listing.limit)
    return (await session.execute(statement)).scalars().all()


async def batches(session: AsyncSession, listing: BatchListing, after: Time | None) -> Sequence[BatchRow]:
    """Batches behind a place, oldest first."""
    statement = select(BatchRow)
    if listing.run is not None:
        statement = statement.where(BatchRow.run_id == listing.run)
    if listing.order is not None:
        statement = statement.where(BatchRow.order_id == listing.order)
    if listing.state is not None:
        statement = statement.where(BatchRow.state == listing.state)
    return await _by_time(session, statement, BatchRow, after, listing.limit)


async def snapshots(session: AsyncSession, listing: SnapshotListing, after: Time | None) -> Sequence[SnapshotRow]:
    """Snapshots behind a place, oldest first."""
    statement = select(SnapshotRow).where(SnapshotRow.campaign_id == listing.campaign)
    if listing.status is not None:
        statement = statement.where(SnapshotRow.status == listing.status)
    if listing.recipe is not None:
        statement = statement.where(SnapshotRow.request["recipe"].astext == listing.recipe)
    return await _by_time(session, statement, SnapshotRow, after, listing.limit)


async def _by_time(
    session: AsyncSession,
    statement: Select[T],
    row: type[OrderRow | BatchRow | SnapshotRow],
    after: Time | None,
    limit: int,
) -> Sequence[T]:
    if after is not None:
        statement = statement.where(tuple_(row.created_at, row.id) > after)
    return (await session.execute(statement.order_by(row.created_at, row.id).limit(limit))).scalars().all()
