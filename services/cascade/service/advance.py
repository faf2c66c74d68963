"""Moves a campaign along the plan, one small transaction a step.

Invariant: every step holds the campaign's row lock, and repeats harmlessly: what a stage makes is fixed in `request`
before it is sent, and keyed, so an advance that died anywhere is simply done again.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

from services.cascade.client import Peers
from services.cascade.models import CampaignRow, StageRow
from services.cascade.repository import UNFINISHED, CampaignRepository
from services.cascade.service.plan import PROBES, after, work_of
from services.cascade.service.progress import abandon
from services.cascade.service.stage import Context, StageHaltedError, WayOut, Work, halted_by, waiting
from shared.contracts.campaigns import CampaignStatus, StageName, StageStatus
from shared.contracts.questions import PoolCounts, QuestionState
from shared.contracts.recipe import Recipe
from shared.db import Database
from shared.errors import HeadwaterError

CONCURRENT_CAMPAIGNS = 8
log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


class Advancer:
    """Advances campaigns; any number of these may run at once."""

    def __init__(self, database: Database, peers: Peers, now: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._peers = peers
        self._now = now

    async def advance(self, campaign_id: UUID) -> None:
        """Take every step that can be taken now. Harmless while another advance of this campaign is under way."""
        while await self._step(campaign_id):
            pass

    async def advance_all(self) -> None:
        """Advance every unfinished campaign, a few at a time; one that breaks does not hold up the others.

        Raises: ExceptionGroup of what broke.
        """
        async with self._database.transaction() as session:
            unfinished = await CampaignRepository(session).unfinished()
        slots = asyncio.Semaphore(CONCURRENT_CAMPAIGNS)

        async def advance(campaign_id: UUID) -> None:
            async with slots:
                await self.advance(campaign_id)

        results = await asyncio.gather(*(advance(one) for one in unfinished), return_exceptions=True)
        broken = [result for result in results if isinstance(result, Exception)]
        if broken:
            raise ExceptionGroup("campaigns could not be advanced", broken)

    async def _step(self, campaign_id: UUID) -> bool:
        async with self._database.transaction() as session:
            repository = CampaignRepository(session)
            campaign = await repository.lock(campaign_id, wait=False)
            if campaign is None or campaign.status not in UNFINISHED:
                return False
            stages = await repository.stages(campaign_id)
            context = Context(campaign_id, Recipe.model_validate(campaign.recipe), stages, self._peers)
            work = work_of(campaign.stage)
            try:
                return await self._proceed(repository, campaign, context, work)
            except HeadwaterError as error:
                halt = halted_by(error, work.name)
            except StageHaltedError as error:
                halt = error
            await self._halt(campaign, stages[work.name], halt)
            return False

    async def _proceed(
        self, repository: CampaignRepository, campaign: CampaignRow, context: Context, work: Work
    ) -> bool:
        stage = context.stages[work.name]
        if stage.status == StageStatus.PENDING:
            await self._start(campaign, context, work, stage)
            return True
        done = stage.request is None or await work.step(context, stage)
        campaign.status, campaign.message = CampaignStatus.RUNNING, ""
        if not done:
            return False
        if work.name in PROBES:
            counts = await self._peers.pool.counts(campaign.id)
            await repository.record_levels(campaign.id, work.name, counts.levels, _states(counts))
        self._finish(campaign, stage)
        return True

    async def _start(self, campaign: CampaignRow, context: Context, work: Work, stage: StageRow) -> None:
        if work.name is StageName.REGISTER:
            await self._peers.pool.put_settings(campaign.id, campaign.name, context.recipe)
        stage.request = await work.prepare(context)
        stage.detail = "skipped: there is nothing to do" if stage.request is None else ""
        stage.status, stage.started_at = StageStatus.RUNNING, self._now()
        campaign.status, campaign.message = CampaignStatus.RUNNING, ""

    def _finish(self, campaign: CampaignRow, stage: StageRow) -> None:
        stage.status, stage.finished_at = StageStatus.DONE, self._now()
        following = after(StageName(stage.name))
        if following is None:
            campaign.status = CampaignStatus.SUCCEEDED
        else:
            campaign.stage = following
        log.info("campaign %s: stage %s is done (%s)", campaign.name, stage.name, following or "the last")

    async def _halt(self, campaign: CampaignRow, stage: StageRow, halt: StageHaltedError) -> None:
        if halt.status is CampaignStatus.FAILED:
            try:
                await abandon(stage, self._peers)
            except HeadwaterError as error:
                if halted_by(error, StageName(stage.name)).status is CampaignStatus.WAITING:
                    halt = waiting(f"{halt.sentence}; before it is given up: {error.message}.")
        campaign.status, campaign.message = halt.status, halt.sentence
        if halt.status is not CampaignStatus.FAILED:
            return
        stage.status, stage.finished_at = StageStatus.FAILED, self._now()
        campaign.message = f"{halt.sentence.rstrip('.')}; {_WAYS_OUT[halt.way_out].format(name=campaign.name)}."
        log.error("campaign %s failed in %s: %s", campaign.name, stage.name, campaign.message)


_WAYS_OUT = {
    WayOut.RESUME: "then resume it with `headwater campaign resume {name}` (POST /v1/campaigns/{name}/resume)",
    WayOut.ANOTHER_CAMPAIGN: "a campaign's recipe never changes, so create another one with `headwater campaign create` "
    "(POST /v1/campaigns)",
}


def _states(counts: PoolCounts) -> dict[str, int]:
    return {state: getattr(counts, state) for state in QuestionState}
