"""Orders: written, read, ended."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import CursorResult, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import AssignmentRow, GroupRow, OrderRow, RolloutQueueRow
from shared.contracts.orders import OrderIn, OrderPolicy, OrderState


async def insert_new(session: AsyncSession, order_id: UUID, request_hash: str, order: OrderIn) -> bool:
    """Insert the order; False when its key is taken."""
    values = order.model_dump(mode="json")
    statement = (
        insert(OrderRow)
        .values(id=order_id, request_hash=request_hash, **values | _uuids(order))
        .on_conflict_do_nothing()
        .returning(OrderRow.id)
    )
    return (await session.execute(statement)).scalar_one_or_none() is not None


def _uuids(order: OrderIn) -> dict[str, Any]:
    return {"campaign_id": order.campaign_id, "policy_id": order.policy_id}


async def get(session: AsyncSession, order_id: UUID) -> OrderRow | None:
    """One order."""
    return await session.get(OrderRow, order_id)


async def lock(session: AsyncSession, order_id: UUID, *, refresh: bool = True) -> OrderRow | None:
    """One order, locked against a change of its policy or state."""
    statement = (
        select(OrderRow)
        .where(OrderRow.id == order_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=refresh)
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def set_policy(session: AsyncSession, order_id: UUID, policy: OrderPolicy) -> None:
    """The policy of the order's new assignments, and of those that nobody has claimed yet."""
    values = {"policy_id": policy.policy_id, "policy_version": policy.policy_version}
    await session.execute(update(OrderRow).where(OrderRow.id == order_id).values(**values))
    await session.execute(
        update(AssignmentRow)
        .where(
            AssignmentRow.order_id == order_id,
            AssignmentRow.available_at.is_not(None),
            AssignmentRow.state == "open",
            AssignmentRow.attempts == 0,
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )


async def close(session: AsyncSession, order_id: UUID) -> int:
    """Close the order; returns how many assignments that nobody works on were withdrawn."""
    closed = {"state": OrderState.CLOSED, "finished_at": func.now()}
    await session.execute(update(OrderRow).where(OrderRow.id == order_id).values(**closed))
    withdrawn = await session.execute(
        update(AssignmentRow)
        .where(AssignmentRow.order_id == order_id, AssignmentRow.available_at.is_not(None))
        .values(state="withdrawn", available_at=None, reason="order-closed", finished_at=func.now())
        .execution_options(synchronize_session=False)
    )
    await session.execute(delete(RolloutQueueRow).where(RolloutQueueRow.order_id == order_id))
    assert isinstance(withdrawn, CursorResult)
    return withdrawn.rowcount


async def complete_finished(session: AsyncSession, order_ids: Sequence[UUID] | None = None) -> list[tuple[UUID, UUID]]:
    """Mark open finite orders without unfinished assignments complete; returns (order, campaign) of those.

    Correct when called after the writer's commit: whoever commits last sees that nothing is left.
    """
    unfinished = (
        select(literal(1))
        .where(AssignmentRow.order_id == OrderRow.id, AssignmentRow.available_at.is_not(None))
        .exists()
    )
    statement = (
        update(OrderRow)
        .where(OrderRow.state == OrderState.OPEN, OrderRow.watermark_groups.is_(None), ~unfinished)
        .values(state=OrderState.COMPLETE, finished_at=func.now())
        .returning(OrderRow.id, OrderRow.campaign_id)
        .execution_options(synchronize_session=False)
    )
    if order_ids is not None:
        statement = statement.where(OrderRow.id.in_(order_ids))
    return [(row.id, row.campaign_id) for row in await session.execute(statement)]


async def waiting(session: AsyncSession, order_id: UUID) -> int:
    """Groups that no batch has taken yet."""
    statement = select(func.count()).where(GroupRow.order_id == order_id, GroupRow.consumption == "waiting")
    return (await session.execute(statement)).scalar_one()


async def unfinished(session: AsyncSession, order_id: UUID) -> int:
    """Assignments that are open or leased."""
    statement = select(func.count()).where(AssignmentRow.order_id == order_id, AssignmentRow.available_at.is_not(None))
    return (await session.execute(statement)).scalar_one()
