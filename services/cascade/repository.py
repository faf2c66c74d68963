"""Every query of the cascade."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.cascade.models import CampaignRow, LevelCountsRow, StageRow
from shared.contracts.campaigns import CampaignIn, CampaignStatus, LevelCounts, StageName, StageStatus

UNFINISHED = (CampaignStatus.WAITING, CampaignStatus.RUNNING)


class CampaignRepository:
    """Campaigns and their stages, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def insert(self, campaign_id: UUID, campaign: CampaignIn, stages: Sequence[StageName]) -> bool:
        """Store a new campaign and its pending stages; False when the name is taken."""
        row = {
            "id": campaign_id,
            "name": campaign.name,
            "recipe": campaign.recipe.model_dump(mode="json"),
            "status": CampaignStatus.RUNNING,
            "stage": stages[0],
        }
        statement = insert(CampaignRow).values(row).on_conflict_do_nothing(index_elements=["name"])
        if await self._session.scalar(statement.returning(CampaignRow.id)) is None:
            return False
        pending = [{"campaign_id": campaign_id, "name": name, "status": StageStatus.PENDING} for name in stages]
        await self._session.execute(insert(StageRow), pending)
        return True

    async def find(self, campaign: UUID | str) -> CampaignRow | None:
        """By id or by name."""
        column = CampaignRow.id if isinstance(campaign, UUID) else CampaignRow.name
        return (await self._session.scalars(select(CampaignRow).where(column == campaign))).one_or_none()

    async def list(self) -> Sequence[CampaignRow]:
        """Every campaign, newest first."""
        return (await self._session.scalars(select(CampaignRow).order_by(CampaignRow.created_at.desc()))).all()

    async def unfinished(self) -> Sequence[UUID]:
        """Those that an advance can move, oldest first."""
        statement = select(CampaignRow.id).where(CampaignRow.status.in_(UNFINISHED)).order_by(CampaignRow.created_at)
        return (await self._session.scalars(statement)).all()

    async def lock(self, campaign_id: UUID, *, wait: bool) -> CampaignRow | None:
        """The campaign, locked until the transaction ends; None when it is missing or (`wait=False`) locked by another."""
        statement = (
            select(CampaignRow)
            .where(CampaignRow.id == campaign_id)
            .with_for_update(skip_locked=not wait)
            .execution_options(populate_existing=True)
        )
        return (await self._session.scalars(statement)).one_or_none()

    async def stages(self, campaign_id: UUID) -> dict[StageName, StageRow]:
        """The campaign's stages by name."""
        rows = await self._session.scalars(select(StageRow).where(StageRow.campaign_id == campaign_id))
        return {StageName(row.name): row for row in rows}

    async def record_levels(
        self, campaign_id: UUID, probe: StageName, levels: Mapping[int, int], states: Mapping[str, int]
    ) -> None:
        """Keep the pools as they were after a probe; the first record of a probe stays."""
        values = {
            "campaign_id": campaign_id,
            "probe": probe,
            "levels": {str(level): count for level, count in levels.items()},
            "states": dict(states),
        }
        await self._session.execute(insert(LevelCountsRow).values(values).on_conflict_do_nothing())

    async def level_counts(self, campaign_id: UUID) -> tuple[LevelCounts, ...]:
        """What was recorded after each probe, in order of time."""
        statement = (
            select(LevelCountsRow)
            .where(LevelCountsRow.campaign_id == campaign_id)
            .order_by(LevelCountsRow.recorded_at, LevelCountsRow.probe)
        )
        return tuple(
            LevelCounts(
                probe=StageName(row.probe), levels={int(k): v for k, v in row.levels.items()}, states=row.states
            )
            for row in await self._session.scalars(statement)
        )
