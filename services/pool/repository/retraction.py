"""Questions that leave the pool: which ones, and the groups that waited for a trainer."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import GroupRow, QuestionRow
from services.pool.repository import batches
from shared.contracts.questions import QuestionState

DROP_REASON = "question-retracted"


async def of_source(session: AsyncSession, campaign_id: UUID, source: str, limit: int) -> Sequence[UUID]:
    """Questions of a campaign's source that are not retracted, in the order they came in."""
    statement = (
        select(QuestionRow.id)
        .where(
            QuestionRow.campaign_id == campaign_id,
            QuestionRow.source == source,
            QuestionRow.state != QuestionState.RETRACTED,
        )
        .order_by(QuestionRow.position)
        .limit(limit)
    )
    return (await session.execute(statement)).scalars().all()


async def drop_waiting(session: AsyncSession, question_ids: Sequence[UUID], reason: str) -> Mapping[UUID, list[UUID]]:
    """Drop the waiting groups of locked questions; returns the order of each dropped group, by question.

    A lease that may be taking one of them is waited for: it has it, and its batch is there to be listed, or it is dropped.
    """
    waiting = (GroupRow.question_id.in_(question_ids), GroupRow.consumption == "waiting")
    for order_id in sorted((await session.execute(select(GroupRow.order_id).where(*waiting).distinct())).scalars()):
        await batches.lock_order(session, order_id)
    statement = (
        update(GroupRow)
        .where(*waiting)
        .values(consumption="dropped", drop_reason=reason)
        .returning(GroupRow.question_id, GroupRow.order_id)
        .execution_options(synchronize_session=False)
    )
    dropped: dict[UUID, list[UUID]] = {question_id: [] for question_id in question_ids}
    for row in await session.execute(statement):
        dropped[row.question_id].append(row.order_id)
    return dropped
