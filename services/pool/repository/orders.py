"""Orders and the choice of their questions."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, String, and_, cast, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import AssignmentRow, GroupRow, OrderRow, QuestionRow, RolloutCountRow
from services.pool.repository import reprobe
from services.pool.router import USABLE_STATES
from shared.contracts.orders import OrderIn, OrderPolicy, OrderState, QuestionSelection
from shared.contracts.questions import Split


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


async def open_standing(session: AsyncSession) -> Sequence[OrderRow]:
    """Open standing orders, in the order in which they are locked."""
    statement = (
        select(OrderRow)
        .where(OrderRow.state == OrderState.OPEN, OrderRow.watermark_groups.is_not(None))
        .order_by(OrderRow.id)
    )
    return (await session.execute(statement)).scalars().all()


async def count_open(session: AsyncSession) -> int:
    """How many orders are open."""
    statement = select(func.count()).select_from(OrderRow).where(OrderRow.state == OrderState.OPEN)
    return (await session.execute(statement)).scalar_one()


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
        .where(AssignmentRow.order_id == order_id, AssignmentRow.state == "open", AssignmentRow.attempts == 0)
        .values(**values)
    )


async def close(session: AsyncSession, order_id: UUID) -> int:
    """Close the order; returns how many assignments that nobody works on were withdrawn."""
    closed = {"state": OrderState.CLOSED, "finished_at": func.now()}
    await session.execute(update(OrderRow).where(OrderRow.id == order_id).values(**closed))
    withdrawn = await session.execute(
        update(AssignmentRow)
        .where(AssignmentRow.order_id == order_id, AssignmentRow.available_at.is_not(None))
        .values(state="withdrawn", available_at=None, reason="order-closed", finished_at=func.now())
        .returning(AssignmentRow.id)
    )
    return len(withdrawn.all())


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


async def add_assignments(session: AsyncSession, order: OrderRow) -> int:
    """The assignments of a finite order: one a selected question, in seeded random order; returns how many."""
    selection = QuestionSelection.model_validate(order.selection)
    chosen = await _selected(session, order.campaign_id, selection)
    source = select(
        literal(order.id).label("order_id"),
        chosen.subquery().c.id.label("question_id"),
        literal(order.policy_id).label("policy_id"),
        literal(order.policy_version).label("policy_version"),
    )
    return await _insert_assignments(session, source)


async def top_up(session: AsyncSession, order: OrderRow, groups: int) -> int:
    """Up to `groups` new assignments of a standing order, least often taken questions first; returns how many."""
    selection = QuestionSelection.model_validate(order.selection)
    chosen = (await _selected(session, order.campaign_id, selection)).subquery()
    taken = func.coalesce(RolloutCountRow.times, 0)
    tie = func.md5(
        cast(literal(f"{order.id}:{selection.seed}:"), String)
        .concat(cast(taken, String))
        .concat(cast(chosen.c.id, String))
    )
    picked = (
        select(chosen.c.id)
        .outerjoin(
            RolloutCountRow, and_(RolloutCountRow.order_id == order.id, RolloutCountRow.question_id == chosen.c.id)
        )
        .order_by(taken, tie)
        .limit(groups)
    )
    question_ids = list((await session.execute(picked)).scalars())
    if not question_ids:
        return 0
    rows = [
        {
            "order_id": order.id,
            "question_id": question_id,
            "policy_id": order.policy_id,
            "policy_version": order.policy_version,
        }
        for question_id in question_ids
    ]
    await session.execute(insert(AssignmentRow), rows)
    counts = insert(RolloutCountRow).on_conflict_do_update(
        index_elements=["order_id", "question_id"], set_={"times": RolloutCountRow.times + 1}
    )
    await session.execute(counts, [{"order_id": order.id, "question_id": id_, "times": 1} for id_ in question_ids])
    return len(question_ids)


async def lock_top_up(session: AsyncSession, order_id: UUID) -> None:
    """One claim at a time makes new assignments of an order."""
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"top-up:{order_id}", 0))))


async def in_flight(session: AsyncSession, order_id: UUID) -> int:
    """Groups of a standing order that wait or are being sampled: bounded by the watermark, so counting is cheap."""
    return await waiting(session, order_id) + await unfinished(session, order_id)


async def waiting(session: AsyncSession, order_id: UUID) -> int:
    """Groups that no batch has taken yet."""
    statement = select(func.count()).where(GroupRow.order_id == order_id, GroupRow.consumption == "waiting")
    return (await session.execute(statement)).scalar_one()


async def unfinished(session: AsyncSession, order_id: UUID) -> int:
    """Assignments that are open or leased."""
    statement = select(func.count()).where(AssignmentRow.order_id == order_id, AssignmentRow.available_at.is_not(None))
    return (await session.execute(statement)).scalar_one()


def _matches(campaign_id: UUID, selection: QuestionSelection) -> ColumnElement[bool]:
    states = [state for state in selection.states or USABLE_STATES if state in USABLE_STATES]
    conditions = [QuestionRow.campaign_id == campaign_id, QuestionRow.state.in_(states)]
    if selection.split is not None:
        conditions.append(QuestionRow.split == selection.split)
    if selection.with_solution:
        conditions.append(QuestionRow.solution.is_not(None))
    return and_(*conditions)


async def _selected(session: AsyncSession, campaign_id: UUID, selection: QuestionSelection) -> Select[UUID]:
    """The selected questions in seeded random order. A fraction is rounded up, so that some question is always in it."""
    condition = _matches(campaign_id, selection)
    if selection.reprobe is not None:
        return await reprobe.selected(session, campaign_id, selection, selection.reprobe, condition)
    shuffled = func.md5(cast(literal(f"{selection.seed}:"), String).concat(cast(QuestionRow.id, String)))
    statement = select(QuestionRow.id).where(condition).order_by(shuffled).limit(selection.limit)
    if selection.fraction == 1.0:
        return statement
    train = and_(condition, QuestionRow.split == Split.TRAIN)
    count = (await session.execute(select(func.count()).select_from(QuestionRow).where(train))).scalar_one()
    share = select(QuestionRow.id).where(train).order_by(shuffled).limit(-int(-count * selection.fraction // 1))
    return statement.where(or_(QuestionRow.split == Split.EVAL, QuestionRow.id.in_(share)))


async def _insert_assignments(session: AsyncSession, source: Select[Any]) -> int:
    columns = ["order_id", "question_id", "policy_id", "policy_version"]
    statement = insert(AssignmentRow).from_select(columns, source, include_defaults=False).returning(AssignmentRow.id)
    return len((await session.execute(statement)).all())
