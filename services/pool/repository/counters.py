"""Counters: delta rows added by the writer in its own transaction, summed by the reader, folded in the background."""

from collections import Counter
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import CounterRow

FOLD_ABOVE_ROWS = 64
FOLD_AT_ONCE = 20_000
# The plan is kept from when the table was nearly empty, so every step is one that also fits a long tail: groups counted once, rows
# found by where they are (nobody updates them).
_FOLD = text("""
    WITH crowded AS MATERIALIZED (
        SELECT scope, name FROM pool.counters GROUP BY scope, name HAVING count(*) > :above
    ), taken AS (
        DELETE FROM pool.counters WHERE ctid = ANY(ARRAY(
            SELECT c.ctid FROM pool.counters c JOIN crowded USING (scope, name) LIMIT :at_once FOR UPDATE OF c SKIP LOCKED
        )) RETURNING scope, name, value
    ), sums AS (
        INSERT INTO pool.counters (scope, name, value) SELECT scope, name, sum(value) FROM taken GROUP BY scope, name
    )
    SELECT count(*) FROM taken
""")


class Deltas:
    """The changes of one transaction, by (scope, name)."""

    def __init__(self) -> None:
        self._values: Counter[tuple[UUID, str]] = Counter()

    def add(self, scope: UUID, name: str, value: int = 1) -> None:
        """Note a change."""
        self._values[scope, name] += value

    def of(self, scope: UUID, name: str) -> int:
        """What was noted so far."""
        return self._values[scope, name]

    async def write(self, session: AsyncSession) -> None:
        """Add the rows; nothing waits for another writer."""
        rows = [
            {"scope": scope, "name": name, "value": value} for (scope, name), value in self._values.items() if value
        ]
        if rows:
            await session.execute(insert(CounterRow), rows)


async def of_scope(session: AsyncSession, scope: UUID) -> dict[str, int]:
    """The counters of a campaign or an order."""
    return (await of_scopes(session, [scope]))[scope]


async def of_scopes(session: AsyncSession, scopes: list[UUID]) -> dict[UUID, dict[str, int]]:
    """The counters of several scopes; an empty mapping where nothing was counted."""
    statement = (
        select(CounterRow.scope, CounterRow.name, func.sum(CounterRow.value).label("value"))
        .where(CounterRow.scope.in_(scopes))
        .group_by(CounterRow.scope, CounterRow.name)
    )
    counters: dict[UUID, dict[str, int]] = {scope: {} for scope in scopes}
    for row in await session.execute(statement):
        counters[row.scope][row.name] = int(row.value)
    return counters


async def fold(session: AsyncSession, above: int = FOLD_ABOVE_ROWS, at_once: int = FOLD_AT_ONCE) -> bool:
    """Sum the rows of crowded counters into one; returns whether there may be more.

    Sums do not change, and two folds at once take different rows.
    """
    folded = await session.execute(_FOLD, {"above": above, "at_once": at_once})
    return bool(folded.scalar_one() == at_once)
