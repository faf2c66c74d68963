"""Campaigns as the pool knows them."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import CampaignRow
from shared.contracts.recipe import PoolRecipe, RouterRecipe


async def put(session: AsyncSession, campaign_id: UUID, name: str, router: RouterRecipe, pool: PoolRecipe) -> None:
    """Insert or replace the settings."""
    values = {"name": name, "router": router.model_dump(mode="json"), **pool.model_dump()}
    statement = insert(CampaignRow).values(id=campaign_id, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


async def get(session: AsyncSession, campaign_id: UUID) -> CampaignRow | None:
    """The campaign, as it is now."""
    return await session.get(CampaignRow, campaign_id, populate_existing=True)


async def exists(session: AsyncSession, campaign_id: UUID) -> bool:
    """Whether the campaign was registered."""
    return await session.get(CampaignRow, campaign_id) is not None


async def routers(session: AsyncSession, campaign_ids: Sequence[UUID]) -> dict[UUID, RouterRecipe]:
    """The router of each campaign."""
    rows = await session.execute(select(CampaignRow.id, CampaignRow.router).where(CampaignRow.id.in_(campaign_ids)))
    return {row.id: RouterRecipe.model_validate(row.router) for row in rows}


async def lock_ingest(session: AsyncSession, campaign_id: UUID) -> None:
    """One chunk of one campaign at a time, so that train and eval questions of two requests see each other."""
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"ingest:{campaign_id}", 0))))
