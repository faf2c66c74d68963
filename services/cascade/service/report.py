"""The report: what each policy of a campaign is worth and what it cost, also half-way."""

import asyncio
from uuid import UUID

from services.cascade.client import Peers
from services.cascade.models import StageRow
from services.cascade.repository import CampaignRepository
from services.cascade.service.campaigns import Campaigns
from services.cascade.service.plan import REPORTED, ReportedPolicy
from shared.contracts.campaigns import Report, ReportStage, StageName, StageStatus
from shared.contracts.metrics import OrderMetrics
from shared.db import Database


async def report(database: Database, peers: Peers, campaign: UUID | str) -> Report:
    """The report as of now. Raises: NotFoundError; HeadwaterError of the pool."""
    shown = await Campaigns(database, peers).get(campaign)
    async with database.transaction() as session:
        repository = CampaignRepository(session)
        stages = await repository.stages(shown.id)
        levels = await repository.level_counts(shown.id)
    counts, *rows = await asyncio.gather(
        peers.pool.counts(shown.id), *(_reported(policy, stages, peers) for policy in REPORTED)
    )
    return Report(campaign=shown, stages=tuple(rows), pools=counts, levels=levels)


async def _reported(policy: ReportedPolicy, stages: dict[StageName, StageRow], peers: Peers) -> ReportStage:
    policy_id = stages[policy.policy_of].policy_id
    made_by = [stages[name] for name in policy.made_by]
    return ReportStage(
        stage=policy.stage,
        policy=str(policy_id) if policy_id else None,
        metrics=await _metrics(stages[policy.evaluated_by], peers),
        seconds=_seconds(made_by),
        tokens_trained=_total([stage.tokens_trained for stage in made_by]),
        tokens_sampled=_total([stage.tokens_sampled for stage in made_by]),
    )


async def _metrics(stage: StageRow, peers: Peers) -> OrderMetrics | None:
    if stage.status != StageStatus.DONE or stage.order_id is None:
        return None
    return await peers.pool.order_metrics(stage.order_id)


def _seconds(stages: list[StageRow]) -> float | None:
    """Wall clock of the stages, None until the last of them is done."""
    spans = [
        (stage.finished_at - stage.started_at).total_seconds()
        for stage in stages
        if stage.status == StageStatus.DONE and stage.started_at and stage.finished_at
    ]
    return sum(spans) if spans and len(spans) == len(stages) else None


def _total(counts: list[int | None]) -> int | None:
    """The sum of what was counted so far; None when nothing was."""
    counted = [count for count in counts if count is not None]
    return sum(counted) if counted else None
