"""Which questions an order is about, and the assignments of a finite order."""

from uuid import UUID

from sqlalchemy import ColumnElement, CursorResult, Select, String, and_, cast, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import AssignmentRow, OrderRow, QuestionRow
from services.pool.repository import reprobe
from services.pool.router import USABLE_STATES
from shared.contracts.orders import QuestionSelection
from shared.contracts.questions import Split


async def add_assignments(session: AsyncSession, order: OrderRow) -> int:
    """The assignments of a finite order: one a selected question, in seeded random order; returns how many."""
    selection = QuestionSelection.model_validate(order.selection)
    chosen = (await selected(session, order.campaign_id, selection)).subquery()
    source = select(
        literal(order.id), chosen.c.id, literal(order.policy_id), literal(order.policy_version), literal(order.priority)
    )
    columns = ["order_id", "question_id", "policy_id", "policy_version", "priority"]
    inserted = await session.execute(insert(AssignmentRow).from_select(columns, source, include_defaults=False))
    assert isinstance(inserted, CursorResult)
    return inserted.rowcount


def matches(campaign_id: UUID, selection: QuestionSelection) -> ColumnElement[bool]:
    """Whether a question can be selected at all; `fraction` and `limit` choose among those."""
    states = [state for state in selection.states or USABLE_STATES if state in USABLE_STATES]
    conditions = [QuestionRow.campaign_id == campaign_id, QuestionRow.state.in_(states)]
    if selection.split is not None:
        conditions.append(QuestionRow.split == selection.split)
    if selection.with_solution:
        conditions.append(QuestionRow.solution.is_not(None))
    return and_(*conditions)


async def selected(session: AsyncSession, campaign_id: UUID, selection: QuestionSelection) -> Select[UUID]:
    """The selected questions in seeded random order. A fraction is rounded up, so that some question is always in it."""
    condition = matches(campaign_id, selection)
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
