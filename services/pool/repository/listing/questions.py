"""Lists of questions and of their events.

Along the position or the pass rate of a campaign, each filter that can be rare has an index that begins with it. A time is
found as a position, by halving, for positions rise with time. A text is looked up in `question_texts`.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import QuestionEventRow, QuestionRow, QuestionTextRow
from shared.contracts.listing import EventListing, QuestionListing, QuestionSort
from shared.contracts.questions import Split

# A question gets its time when its transaction begins and its position later; no transaction waits so long between.
TIME_SLACK = timedelta(hours=1)
# How many texts have a piece decides between its index and reading along the positions, and a plan for any piece cannot know.
_PLAN_FOR_THE_PIECE = text("SET LOCAL plan_cache_mode = force_custom_plan")
# The first position of a campaign whose question was made at a moment or later, or one behind the last.
_FIRST_SINCE = text("""
    WITH RECURSIVE halving(low, high) AS (
        SELECT min(position), max(position) + 1 FROM pool.questions WHERE campaign_id = :campaign
        UNION ALL
        SELECT
            CASE WHEN found.created_at < :moment THEN found.position + 1 ELSE low END,
            CASE WHEN found.created_at < :moment THEN high ELSE (low + high) / 2 END
        FROM halving, LATERAL (
            SELECT position, created_at FROM pool.questions
            WHERE campaign_id = :campaign AND position >= (low + high) / 2 ORDER BY position LIMIT 1
        ) AS found
        WHERE low < high
    )
    SELECT max(low) FROM halving
""")


async def by_position(session: AsyncSession, listing: QuestionListing, after: int) -> Sequence[QuestionRow]:
    """Questions behind a position, in the order in which they came."""
    conditions = [*_conditions(listing), *await _span(session, listing)]
    if listing.text is not None:
        return await _with_text(session, listing, conditions, after, listing.text)
    if listing.state is not None and listing.split is None and not _narrower(listing):
        return await _of_both_splits(session, listing, conditions, after)
    statement = select(QuestionRow).where(*conditions, QuestionRow.position > after)
    return await _rows(session, statement.order_by(QuestionRow.position).limit(listing.limit))


async def by_pass_rate(
    session: AsyncSession, listing: QuestionListing, after: tuple[float, int] | None
) -> Sequence[QuestionRow]:
    """Questions with a pass rate behind a place, by pass rate."""
    key = tuple_(QuestionRow.pass_rate, QuestionRow.position)
    hardest = listing.sort is QuestionSort.HARDEST
    conditions = [*_conditions(listing), *await _span(session, listing), QuestionRow.pass_rate.is_not(None)]
    if after is not None:
        conditions.append(key > after if hardest else key < after)
    columns = (QuestionRow.pass_rate, QuestionRow.position)
    order = columns if hardest else tuple(column.desc() for column in columns)
    return await _rows(session, select(QuestionRow).where(*conditions).order_by(*order).limit(listing.limit))


async def events(session: AsyncSession, listing: EventListing, after: int) -> Sequence[QuestionEventRow]:
    """Events behind an id."""
    statement = select(QuestionEventRow).where(QuestionEventRow.id > after)
    if listing.question is not None:
        statement = statement.where(QuestionEventRow.question_id == listing.question)
    if listing.campaign is not None:
        statement = statement.where(QuestionEventRow.campaign_id == listing.campaign)
    if listing.reason is not None:
        statement = statement.where(QuestionEventRow.reason == listing.reason)
    if listing.to_pool is not None:
        statement = statement.where(QuestionEventRow.to_state == listing.to_pool)
    return (await session.execute(statement.order_by(QuestionEventRow.id).limit(listing.limit))).scalars().all()


def _conditions(listing: QuestionListing) -> list[ColumnElement[bool]]:
    """The plain conditions; each says what its partial index says, so that a prepared statement may use it."""
    conditions: list[ColumnElement[bool]] = [QuestionRow.campaign_id == listing.campaign]
    if listing.split is not None:
        conditions.append(QuestionRow.split == listing.split)
    if listing.state is not None:
        conditions.append(QuestionRow.state == listing.state)
    if listing.tiny is not None:
        conditions.append(~QuestionRow.tiny if not listing.tiny else QuestionRow.tiny.expression)
    if listing.level is not None:
        conditions += [QuestionRow.level == listing.level, QuestionRow.level.is_not(None)]
    for column, value, usual in (
        (QuestionRow.source, listing.source, ""),
        (QuestionRow.kind, listing.kind, "math"),
        (QuestionRow.domain, listing.domain, "text"),
    ):
        if value is not None:
            conditions.append(column == value)
        if value not in (None, usual):
            conditions.append(column != text(f"'{usual}'"))
    if listing.pass_rate_from is not None:
        conditions.append(QuestionRow.pass_rate >= listing.pass_rate_from)
    if listing.pass_rate_to is not None:
        conditions.append(QuestionRow.pass_rate <= listing.pass_rate_to)
    return conditions


def _narrower(listing: QuestionListing) -> bool:
    """Whether something else than the state is asked for that has an index."""
    others = (listing.level, listing.source, listing.kind, listing.domain, listing.pass_rate_from, listing.pass_rate_to)
    return listing.tiny is True or any(value is not None for value in others)


async def _span(session: AsyncSession, listing: QuestionListing) -> list[ColumnElement[bool]]:
    """The conditions of a range of time, and the range of positions that it lies in."""
    conditions: list[ColumnElement[bool]] = []
    if (start := listing.created_from) is not None:
        first = await _first_since(session, listing.campaign, start, -TIME_SLACK)
        conditions += [QuestionRow.created_at >= start, QuestionRow.position >= first]
    if (end := listing.created_before) is not None:
        last = await _first_since(session, listing.campaign, end, TIME_SLACK)
        conditions += [QuestionRow.created_at < end, QuestionRow.position < last]
    return conditions


async def _first_since(session: AsyncSession, campaign_id: UUID, moment: datetime, slack: timedelta) -> int:
    with suppress(OverflowError):  # the ends of time need no slack
        moment += slack
    found = await session.execute(_FIRST_SINCE, {"campaign": campaign_id, "moment": moment})
    return found.scalar_one() or 0


async def _of_both_splits(
    session: AsyncSession, listing: QuestionListing, conditions: list[ColumnElement[bool]], after: int
) -> Sequence[QuestionRow]:
    """A state of both splits: the heads of two lists that are sorted already."""
    heads = [
        select(QuestionRow)
        .where(*conditions, QuestionRow.split == split, QuestionRow.position > after)
        .order_by(QuestionRow.position)
        .limit(listing.limit)
        for split in Split
    ]
    rows = [row for head in heads for row in await _rows(session, head)]
    return sorted(rows, key=lambda row: row.position)[: listing.limit]


async def _with_text(
    session: AsyncSession, listing: QuestionListing, conditions: list[ColumnElement[bool]], after: int, piece: str
) -> Sequence[QuestionRow]:
    """Questions with a piece of text: looked up as far as texts are indexed, then read one by one."""
    escaped = piece.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    pattern = f"%{escaped}%"
    await session.execute(_PLAN_FOR_THE_PIECE)
    end = await indexed_to(session, listing.campaign)
    indexed = (
        select(QuestionRow)
        .join(
            QuestionTextRow,
            (QuestionTextRow.campaign_id == QuestionRow.campaign_id)
            & (QuestionTextRow.position == QuestionRow.position),
        )
        .where(
            *conditions,
            QuestionTextRow.campaign_id == listing.campaign,
            QuestionTextRow.position > after,
            QuestionTextRow.position <= end,
            QuestionTextRow.text.ilike(pattern),
        )
        .order_by(QuestionTextRow.position)
        .limit(listing.limit)
    )
    found = list(await _rows(session, indexed))
    if len(found) == listing.limit:
        return found
    rest = select(QuestionRow).where(
        *conditions, QuestionRow.position > max(after, end), QuestionRow.text.ilike(pattern)
    )
    rest = rest.order_by(QuestionRow.position).limit(listing.limit - len(found))
    return [*found, *await _rows(session, rest)]


async def indexed_to(session: AsyncSession, campaign_id: UUID) -> int:
    """The position of the last question of a campaign whose text is indexed."""
    statement = (
        select(QuestionTextRow.position)
        .where(QuestionTextRow.campaign_id == campaign_id)
        .order_by(QuestionTextRow.position.desc())
        .limit(1)
    )
    return (await session.execute(statement)).scalar_one_or_none() or 0


async def _rows(session: AsyncSession, statement: Select[Any]) -> Sequence[QuestionRow]:
    rows: Sequence[QuestionRow] = (await session.execute(statement)).scalars().all()
    return rows
