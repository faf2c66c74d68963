"""What snapshots are built from: scored groups to usable train questions, whole questions at a time."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import GroupRow, OrderRow, QuestionRow, ResponseRow
from services.pool.router import UNUSABLE_STATES
from shared.contracts.questions import Split
from shared.contracts.verdicts import VerdictOutcome


async def hold_still(session: AsyncSession) -> None:
    """Everything read from here on is of one moment. Call it first in the transaction."""
    await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


async def pages(session: AsyncSession, order_ids: Sequence[UUID], groups_at_once: int) -> AsyncIterator[list[UUID]]:
    """Ids of the groups of these orders, by question; a question's are together, on one page, in a fixed order.

    A page has `groups_at_once` groups, and those that its last question has more. The ids come by a cursor on the server.
    """
    statement = (
        select(GroupRow.question_id, GroupRow.id)
        .join(QuestionRow, QuestionRow.id == GroupRow.question_id)
        .where(
            GroupRow.order_id.in_(order_ids),
            QuestionRow.split == Split.TRAIN,
            QuestionRow.state.not_in(UNUSABLE_STATES),
        )
        .order_by(GroupRow.question_id, GroupRow.policy_version, GroupRow.id)
        .execution_options(yield_per=groups_at_once)
    )
    page: list[UUID] = []
    last: UUID | None = None
    async for question_id, group_id in await session.stream(statement):
        if len(page) >= groups_at_once and question_id != last:
            yield page
            page = []
        page.append(group_id)
        last = question_id
    if page:
        yield page


async def answers(session: AsyncSession, group_ids: Sequence[UUID]) -> Sequence[Row[Any]]:
    """The scored responses of a page of groups, in the same order."""
    statement = (
        select(
            QuestionRow.id.label("question_id"),
            QuestionRow.text.label("question"),
            QuestionRow.solution,
            QuestionRow.domain,
            QuestionRow.level,
            ResponseRow.text,
            ResponseRow.segments,
            ResponseRow.outcome,
            ResponseRow.finish_reason,
            ResponseRow.answer,
            OrderRow.purpose,
        )
        .join(GroupRow, GroupRow.id == ResponseRow.group_id)
        .join(OrderRow, OrderRow.id == GroupRow.order_id)
        .join(QuestionRow, QuestionRow.id == GroupRow.question_id)
        .where(GroupRow.id.in_(group_ids), ResponseRow.outcome != VerdictOutcome.UNSCORED)
        .order_by(QuestionRow.id, GroupRow.policy_version, GroupRow.id, ResponseRow.position)
    )
    return (await session.execute(statement)).all()
