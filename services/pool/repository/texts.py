"""The index of question texts: filled behind the writers' backs, for an index of pieces costs more than storing a question.

Invariant: of each campaign, exactly the questions up to some position are in it.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import CampaignRow

_ADD = text("""
    INSERT INTO pool.question_texts (campaign_id, position, text)
    SELECT campaign_id, position, text FROM pool.questions
    WHERE campaign_id = :campaign AND position > coalesce(
        (SELECT position FROM pool.question_texts WHERE campaign_id = :campaign ORDER BY position DESC LIMIT 1), 0
    )
    ORDER BY position LIMIT :limit
    RETURNING position
""")


async def campaigns(session: AsyncSession) -> Sequence[UUID]:
    """Those that may have texts to add."""
    return (await session.execute(select(CampaignRow.id).order_by(CampaignRow.id))).scalars().all()


async def add_next(session: AsyncSession, campaign_id: UUID, limit: int) -> int:
    """Add the next texts of a campaign; returns how many. None while its questions are being written: they come in order."""
    key = func.hashtextextended(f"ingest:{campaign_id}", 0)
    if not (await session.execute(select(func.pg_try_advisory_xact_lock(key)))).scalar_one():
        return 0
    return len((await session.execute(_ADD, {"campaign": campaign_id, "limit": limit})).all())
