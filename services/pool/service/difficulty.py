"""How hard questions are: for one by policy version with intervals, for a campaign by version and level."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row

from services.pool.models import QuestionEventRow
from services.pool.posterior import interval
from services.pool.repository import campaigns, difficulty, questions
from services.pool.router import PassRate, level_of
from shared.contracts.difficulty import (
    CampaignDifficulty,
    Measurement,
    MoveCount,
    PoolMove,
    QuestionDifficulty,
    VersionLevels,
)
from shared.contracts.orders import OrderPurpose
from shared.contracts.questions import QuestionState
from shared.contracts.recipe import RouterRecipe
from shared.db import Database
from shared.errors import NotFoundError


class Difficulty:
    """Reading what was measured."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_question(self, question_id: UUID) -> QuestionDifficulty:
        """A question's pass rates by policy version and its moves between pools. Raises: NotFoundError."""
        async with self._database.transaction() as session:
            row = (await questions.by_ids(session, [question_id])).get(question_id)
            if row is None:
                raise NotFoundError("question", question_id)
            router = (await campaigns.routers(session, [row.campaign_id]))[row.campaign_id]
            measured = await difficulty.measurements(session, question_id)
            moves = await difficulty.moves(session, question_id)
        return QuestionDifficulty(
            question_id=question_id,
            state=QuestionState(row.state),
            tiny=row.tiny,
            level=row.level,
            pass_rate=row.pass_rate,
            measurements=tuple(_measurement(line, router) for line in measured),
            moves=tuple(to_move(event) for event in moves),
        )

    async def of_campaign(self, campaign_id: UUID) -> CampaignDifficulty:
        """Questions by policy version and level, and moves by reason. Raises: NotFoundError."""
        async with self._database.transaction() as session:
            if not await campaigns.exists(session, campaign_id):
                raise NotFoundError("campaign", campaign_id)
            measured, moves = await difficulty.counts(session, campaign_id)
        versions = [
            VersionLevels(
                policy_version=version,
                split=split,
                n=sum(levels.values()),
                levels={level: count for level, count in sorted(levels.items()) if count},
            )
            for (version, split), levels in sorted(measured.items())
        ]
        counted = [
            MoveCount(from_pool=from_pool, to_pool=to_pool, reason=reason, n=n)
            for (from_pool, to_pool, reason), n in sorted(moves.items())
        ]
        return CampaignDifficulty(campaign_id=campaign_id, versions=tuple(versions), moves=tuple(counted))


def _measurement(row: Row[*tuple[Any, ...]], router: RouterRecipe) -> Measurement:
    rate = PassRate(int(row.n), int(row.correct))
    found = interval(rate.n, rate.correct)
    return Measurement(
        policy_id=row.policy_id,
        policy_version=row.policy_version,
        purpose=OrderPurpose(row.purpose),
        n=rate.n,
        correct=rate.correct,
        mean=rate.mean,
        variance=rate.variance,
        low=found.low,
        high=found.high,
        level=level_of(rate, router),
        measured_at=row.measured_at,
    )


def to_move(event: QuestionEventRow) -> PoolMove:
    """The wire form of an event."""
    return PoolMove(
        from_pool=event.from_state,
        to_pool=event.to_state,
        reason=event.reason,
        order_id=event.order_id,
        at=event.at,
    )
