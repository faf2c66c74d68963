"""The daily partitions of `group_tokens`: made before they are needed, dropped when nothing in them is needed any more.

Invariant: a row always has a place: where its day's partition is missing, the default partition takes it, and it moves when the
partition is made. Waiting for a lock is short, since everybody who wants the table queues behind the one that waits.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import func, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import BatchGroupRow, BatchRow, GroupRow

PREFIX = "group_tokens_"
DEFAULT = f"{PREFIX}default"
# A partition is written once and dropped whole; a vacuum that looks for rows to freeze would only read it all again.
_STORAGE = "autovacuum_vacuum_insert_threshold = -1, toast.autovacuum_vacuum_insert_threshold = -1"
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('pool.group_tokens', 0))")
_TIMEOUT = text("SET LOCAL lock_timeout = '1s'")
_DAYS = text("""
    SELECT substring(c.relname FROM length(:prefix) + 1) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'pool.group_tokens'::regclass AND c.relname <> :default ORDER BY 1
""").bindparams(prefix=PREFIX, default=DEFAULT)
_STRAYS = text("SELECT DISTINCT (created_at AT TIME ZONE 'UTC')::date FROM pool.group_tokens_default")


async def days(session: AsyncSession) -> list[date]:
    """The days that have a partition, oldest first."""
    return [date.fromisoformat(name) for name in (await session.execute(_DAYS)).scalars()]


async def strays(session: AsyncSession) -> list[date]:
    """The days of rows that the default partition holds."""
    return list((await session.execute(_STRAYS)).scalars())


async def make(session: AsyncSession, wanted: Sequence[date]) -> None:
    """Partitions of these days, where they are missing; their rows in the default partition move into them.

    Raises: DBAPIError (55P03) when a lock is not to be had within a second; nothing is lost then.
    """
    if not set(wanted) - set(await days(session)):
        return
    await session.execute(_TIMEOUT)
    await session.execute(_LOCK)
    for day in sorted(set(wanted) - set(await days(session))):
        name, (start, end) = f"pool.{PREFIX}{day:%Y%m%d}", (at.isoformat() for at in bounds(day))
        moved = f"DELETE FROM pool.{DEFAULT} WHERE created_at >= '{start}' AND created_at < '{end}' RETURNING *"  # noqa: S608
        place = f"FOR VALUES FROM ('{start}') TO ('{end}')"
        for statement in (
            f"CREATE TABLE {name} (LIKE pool.group_tokens INCLUDING ALL) WITH ({_STORAGE})",
            f"LOCK TABLE pool.{DEFAULT} IN ACCESS EXCLUSIVE MODE",
            f"WITH moved AS ({moved}) INSERT INTO {name} SELECT * FROM moved",  # noqa: S608 (nobody's words)
            f"ALTER TABLE pool.group_tokens ATTACH PARTITION {name} {place}",
        ):
            await session.execute(text(statement))


async def drop(session: AsyncSession, day: date) -> None:
    """Drop the partition of a day. Raises: DBAPIError (55P03) when a reader holds it for more than a second."""
    await session.execute(_TIMEOUT)
    await session.execute(text(f"DROP TABLE IF EXISTS pool.{PREFIX}{day:%Y%m%d}"))


async def oldest_needed(session: AsyncSession) -> datetime | None:
    """When the oldest group was made that still waits for a trainer or is leased to one; None when none is.

    By the indexes of what waits and what is leased, however many groups there are.
    """
    waiting = select(func.min(GroupRow.created_at).label("at")).where(GroupRow.consumption == "waiting")
    leased = (
        select(func.min(GroupRow.created_at))
        .join(BatchGroupRow, BatchGroupRow.group_id == GroupRow.id)
        .join(BatchRow, BatchRow.id == BatchGroupRow.batch_id)
        .where(BatchRow.state == "leased")
    )
    both = union_all(waiting, leased).subquery()
    found: datetime | None = (await session.execute(select(func.min(both.c.at)))).scalar_one()
    return found


def bounds(day: date) -> tuple[datetime, datetime]:
    """From when to when a day lasts, UTC."""
    start = datetime.combine(day, time(), UTC)
    return start, start + timedelta(days=1)
