"""Difficulty: what was measured of a question by policy version, its moves between pools, and the counts of both.

The counts of a campaign have a scope of their own, so that they weigh on no reader of its other counters.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool import identity
from services.pool.models import OrderRow, PassRateRow, QuestionEventRow
from services.pool.repository import counters
from services.pool.repository.counters import Deltas
from services.pool.router import Standing, measured_as, pool_moves
from shared.contracts.questions import QuestionState, Split

MAX_MOVES = 1000
RETRACTED = "retracted"  # what a person wrote when retracting is only in the event: reasons that are counted are few
Measured = Mapping[tuple[int, Split], Mapping[int, int]]


def count(campaign_id: UUID, before: Standing, after: Standing, reason: str, deltas: Deltas) -> None:
    """Note a move in the campaign's counts of levels by version and of moves by reason."""
    scope = identity.difficulty_scope(campaign_id)
    counted_reason = RETRACTED if after.state is QuestionState.RETRACTED else reason
    for from_pool, to_pool in pool_moves(before, after):
        deltas.add(scope, f"moved:{from_pool}:{to_pool}:{counted_reason}")
    for (version, level), change in measured_as(before, after).items():
        recount(campaign_id, after.split, version, level, change, deltas)


def recount(campaign_id: UUID, split: Split, version: int, level: int, change: int, deltas: Deltas) -> None:
    """Note that `change` more questions have this level under a policy version."""
    deltas.add(identity.difficulty_scope(campaign_id), f"measured:{version}:{split}:{level}", change)


async def counts(session: AsyncSession, campaign_id: UUID) -> tuple[Measured, dict[tuple[str, str, str], int]]:
    """(questions by (version, split) and level, moves by (from, to, reason)) of a campaign."""
    measured: dict[tuple[int, Split], Counter[int]] = {}
    moves: dict[tuple[str, str, str], int] = {}
    for name, value in (await counters.of_scope(session, identity.difficulty_scope(campaign_id))).items():
        kind, first, second, rest = name.split(":", 3)
        if kind == "moved":
            moves[first, second, rest] = value
        else:
            measured.setdefault((int(first), Split(second)), Counter())[int(rest)] += value
    return measured, moves


async def measurements(session: AsyncSession, question_id: UUID) -> Sequence[Row[UUID, int, str, int, int, datetime]]:
    """Of a question: n and correct by policy and purpose, oldest version first."""
    statement = (
        select(
            PassRateRow.policy_id,
            PassRateRow.policy_version,
            OrderRow.purpose,
            func.sum(PassRateRow.n).label("n"),
            func.sum(PassRateRow.correct).label("correct"),
            func.max(PassRateRow.updated_at).label("measured_at"),
        )
        .join(OrderRow, OrderRow.id == PassRateRow.order_id)
        .where(PassRateRow.question_id == question_id)
        .group_by(PassRateRow.policy_id, PassRateRow.policy_version, OrderRow.purpose)
        .order_by(PassRateRow.policy_version, func.max(PassRateRow.updated_at), OrderRow.purpose)
    )
    return (await session.execute(statement)).all()


async def moves(session: AsyncSession, question_id: UUID) -> Sequence[QuestionEventRow]:
    """The newest moves of a question between pools, oldest first."""
    statement = (
        select(QuestionEventRow)
        .where(QuestionEventRow.question_id == question_id)
        .order_by(QuestionEventRow.id.desc())
        .limit(MAX_MOVES)
    )
    return (await session.execute(statement)).scalars().all()[::-1]
