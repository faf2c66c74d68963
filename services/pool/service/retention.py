"""How long token-level data is kept: partitions come before their day, and go when nothing in them is needed.

Invariant: the tokens of a group that waits for a trainer, or is leased to one, never go, however old they are. What goes is a whole
day's token arrays; text, segments, verdicts and pass rates stay, and readers see such a group with empty arrays and `tokens_expired`.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.repository import partitions
from shared.db import Database

DAYS_AHEAD = 3
# A lock that was not to be had in time, and a deadlock.
_BUSY_SQLSTATES = ("55P03", "40P01")
log = logging.getLogger(__name__)


class Retention:
    """Makes and drops partitions. `keep_days` 0 keeps everything."""

    def __init__(self, database: Database, keep_days: float) -> None:
        self._database = database
        self._keep_days = keep_days
        self._made: set[date] = set()

    async def make_today(self) -> None:
        """The partition of today, when nobody made it. Without it rows go to the default partition."""
        today = datetime.now(UTC).date()
        if today not in self._made:
            await self._make([today])

    async def tidy(self) -> None:
        """Make the partitions of the next days and of rows that have none; drop those that are over."""
        now = datetime.now(UTC)
        async with self._database.transaction() as session:
            strays = await partitions.strays(session)
        await self._make([*strays, *(now.date() + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1))])
        if self._keep_days:
            await self.drop_before(now - timedelta(days=self._keep_days))

    async def drop_before(self, cutoff: datetime) -> list[date]:
        """Drop the days that ended before `cutoff` and before the oldest group that is still needed was made."""
        async with self._database.transaction() as session:
            needed = await partitions.oldest_needed(session)
            limit = cutoff if needed is None else min(cutoff, needed)
            over = [day for day in await partitions.days(session) if partitions.bounds(day)[1] <= limit]
        dropped = []
        for day in over:
            if await self._try(partial(partitions.drop, day=day)):
                dropped.append(day)
                log.info("the token-level data of %s is over and dropped", day)
        return dropped

    async def _make(self, days: Sequence[date]) -> None:
        if await self._try(partial(partitions.make, wanted=days)):
            self._made = {day for day in self._made | set(days) if day >= datetime.now(UTC).date()}

    async def _try(self, change: Callable[[AsyncSession], Awaitable[None]]) -> bool:
        """Whether a change of the partitions could have its locks; if not, the next turn tries again."""
        try:
            async with self._database.transaction() as session:
                await change(session)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _BUSY_SQLSTATES:
                raise
            log.info("a partition of group_tokens is busy; it is tried again")
            return False
        return True
