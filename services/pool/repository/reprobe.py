"""The selection of a probe that asks again: the questions about which a probe tells most, at most `limit` of them."""

from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    Integer,
    Select,
    String,
    and_,
    cast,
    column,
    exists,
    func,
    literal,
    select,
    values,
)
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import OrderRow, PassRateRow, QuestionRow
from services.pool.repository import campaigns
from services.pool.reprobe import Measured, ranked
from shared.contracts.orders import OrderPurpose, QuestionSelection, ReprobeSelection


async def selected(
    session: AsyncSession,
    campaign_id: UUID,
    selection: QuestionSelection,
    reprobe: ReprobeSelection,
    condition: ColumnElement[bool],
) -> Select[UUID]:
    """The questions that match, best score first and in seeded random order among equals."""
    measured = _measured(condition).subquery()
    numbers = (measured.c.n, measured.c.correct, measured.c.version)
    kinds = [Measured(row.n, row.correct, row.version) for row in await session.execute(select(*numbers).distinct())]
    router = (await campaigns.routers(session, [campaign_id]))[campaign_id]
    scores = ranked(kinds, reprobe.policy_version, reprobe.minimum_staleness, router)
    if not scores:
        return select(QuestionRow.id).where(literal(False))
    table = (
        values(
            column("n", BigInteger), column("correct", BigInteger), column("version", Integer), column("score", Double)
        )
        .data([(one.n, one.correct, one.version, score) for one, score in scores])
        .alias("scores")
    )
    same = and_(
        table.c.n == measured.c.n,
        table.c.correct == measured.c.correct,
        table.c.version.is_not_distinct_from(measured.c.version),
    )
    shuffled = func.md5(cast(literal(f"{selection.seed}:"), String).concat(cast(measured.c.id, String)))
    return (
        select(measured.c.id)
        .join(table, same)
        .order_by(table.c.score.desc(), shuffled, measured.c.id)
        .limit(selection.limit)
    )


def _measured(condition: ColumnElement[bool]) -> Select[UUID, int, int, int | None]:
    """(id, n, correct, version) of every matching question, by the probes of the version that decided its pool."""
    is_probe = exists().where(OrderRow.id == PassRateRow.order_id, OrderRow.purpose == OrderPurpose.PROBE)
    decided = and_(
        PassRateRow.question_id == QuestionRow.id, PassRateRow.policy_version == QuestionRow.probed_version, is_probe
    )
    return (
        select(
            QuestionRow.id,
            cast(func.coalesce(func.sum(PassRateRow.n), 0), BigInteger).label("n"),
            cast(func.coalesce(func.sum(PassRateRow.correct), 0), BigInteger).label("correct"),
            QuestionRow.probed_version.label("version"),
        )
        .outerjoin(PassRateRow, decided)
        .where(condition)
        .group_by(QuestionRow.id)
    )
