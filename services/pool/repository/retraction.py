"""Retraction: which questions, and the groups that waited for a trainer."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import GroupRow, QuestionRow
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


async def drop_waiting(session: AsyncSession, question_ids: Sequence[UUID]) -> Mapping[UUID, list[UUID]]:
    """Drop the waiting groups of locked questions; returns the order of each dropped group, by question."""
    statement = (
        update(GroupRow)
        .where(GroupRow.question_id.in_(question_ids), GroupRow.consumption == "waiting")
        .values(consumption="dropped", drop_reason=DROP_REASON)
        .returning(GroupRow.question_id, GroupRow.order_id)
        .execution_options(synchronize_session=False)
    )
    dropped: dict[UUID, list[UUID]] = {question_id: [] for question_id in question_ids}
    for row in await session.execute(statement):
        dropped[row.question_id].append(row.order_id)
    return dropped
