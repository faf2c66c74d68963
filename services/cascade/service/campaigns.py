"""Campaigns for people: create, show, list, cancel, resume."""

import asyncio
from uuid import UUID, uuid4

from services.cascade.client import Peers
from services.cascade.models import CampaignRow, StageRow
from services.cascade.repository import UNFINISHED, CampaignRepository
from services.cascade.service.plan import NAMES
from services.cascade.service.progress import abandon, refresh
from shared.contracts.campaigns import Campaign, CampaignIn, CampaignStatus, Stage, StageName, StageStatus
from shared.contracts.recipe import Recipe
from shared.db import Database
from shared.errors import ConflictError, HeadwaterError, NotFoundError

LIVE_PROGRESS_S = 3.0


class Campaigns:
    """What the API decides."""

    def __init__(self, database: Database, peers: Peers) -> None:
        self._database = database
        self._peers = peers

    async def create(self, campaign: CampaignIn) -> tuple[Campaign, bool]:
        """The campaign of this name, and whether it is new. From then on the pool takes questions for it.

        Raises: ConflictError when the name has another recipe; UnavailableError when the pool does not answer (the
        campaign is stored; repeat the request).
        """
        async with self._database.transaction() as session:
            repository = CampaignRepository(session)
            created = await repository.insert(uuid4(), campaign, NAMES)
            row = await _found(repository, campaign.name)
            if not created and Recipe.model_validate(row.recipe) != campaign.recipe:
                raise ConflictError(
                    "campaign_exists",
                    f"Campaign '{campaign.name}' exists with another recipe; a recipe is never changed: choose another name.",
                )
            stages = await repository.stages(row.id)
        await self._peers.pool.put_settings(row.id, row.name, campaign.recipe)
        return as_campaign(row, stages), created

    async def get(self, campaign: UUID | str) -> Campaign:
        """One campaign, with the progress of its running stage as it is now. Raises: NotFoundError."""
        async with self._database.transaction() as session:
            repository = CampaignRepository(session)
            row = await _found(repository, campaign)
            stages = await repository.stages(row.id)
        stage = stages[StageName(row.stage)]
        if stage.status == StageStatus.RUNNING:
            try:
                async with asyncio.timeout(LIVE_PROGRESS_S):
                    await refresh(stage, self._peers)
            except (HeadwaterError, TimeoutError) as error:
                stage.detail = f"as of the last sweep: {error or 'no answer in time'}"
        return as_campaign(row, stages)

    async def list(self) -> list[Campaign]:
        """Every campaign, newest first, with the progress of the last sweep."""
        async with self._database.transaction() as session:
            repository = CampaignRepository(session)
            return [as_campaign(row, await repository.stages(row.id)) for row in await repository.list()]

    async def cancel(self, campaign: UUID | str) -> Campaign:
        """Stop it for good, with the run and the order that it has under way. One that has ended stays as it is.

        Raises: NotFoundError; UnavailableError when these cannot be stopped now (repeat the request).
        """
        async with self._database.transaction() as session:
            repository = CampaignRepository(session)
            row, stages = await _locked(repository, campaign)
            if row.status in (*UNFINISHED, CampaignStatus.FAILED):
                await abandon(stages[StageName(row.stage)], self._peers)
                row.status, row.message = CampaignStatus.CANCELLED, "Cancelled on request."
        return as_campaign(row, stages)

    async def resume(self, campaign: UUID | str) -> Campaign:
        """Try the failed stage once more, with a new order, snapshot or run; stages that are done stay done.

        Harmless for a campaign that is under way. Raises: NotFoundError; ConflictError after success or cancelling.
        """
        async with self._database.transaction() as session:
            repository = CampaignRepository(session)
            row, stages = await _locked(repository, campaign)
            if row.status == CampaignStatus.FAILED:
                _again(stages[StageName(row.stage)])
                row.status, row.message = CampaignStatus.RUNNING, ""
            elif row.status not in UNFINISHED:
                raise ConflictError(
                    "campaign_ended", f"Campaign '{row.name}' is {row.status} and cannot go on; create another one."
                )
        return as_campaign(row, stages)


def as_campaign(row: CampaignRow, stages: dict[StageName, StageRow]) -> Campaign:
    """The wire form, stages in the order of the plan."""
    return Campaign(
        id=row.id,
        name=row.name,
        recipe=Recipe.model_validate(row.recipe),
        status=CampaignStatus(row.status),
        stage=StageName(row.stage),
        message=row.message,
        stages=tuple(_as_stage(stages[name]) for name in NAMES),
        created_at=row.created_at,
    )


def _as_stage(row: StageRow) -> Stage:
    return Stage.model_validate({field: getattr(row, field) for field in Stage.model_fields})


def _again(stage: StageRow) -> None:
    stage.status, stage.attempt = StageStatus.PENDING, stage.attempt + 1
    stage.done, stage.total, stage.unit, stage.detail = 0, 0, "", ""
    stage.request = stage.order_id = stage.snapshot_id = stage.run_id = None
    stage.tokens_trained = stage.tokens_sampled = stage.started_at = stage.finished_at = None


async def _found(repository: CampaignRepository, campaign: UUID | str) -> CampaignRow:
    row = await repository.find(campaign)
    if row is None:
        raise NotFoundError("campaign", campaign)
    return row


async def _locked(
    repository: CampaignRepository, campaign: UUID | str
) -> tuple[CampaignRow, dict[StageName, StageRow]]:
    found = await _found(repository, campaign)
    row = await repository.lock(found.id, wait=True)
    if row is None:
        raise NotFoundError("campaign", campaign)
    return row, await repository.stages(row.id)
