"""What the pool does between requests: builds snapshots, indexes texts, folds counters, draws turns ahead, notices orders that
ended unnoticed, makes and drops the partitions of token-level data.

Every replica runs it; leases and skipped locks keep them apart. A failure is logged and tried again at the next turn.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from services.pool.hints import Hints
from services.pool.repository import counters, idempotency
from services.pool.service.listing import index_texts
from services.pool.service.orders import complete_finished
from services.pool.service.retention import Retention
from services.pool.service.rollouts import Rollouts
from services.pool.service.snapshots import Snapshots
from shared.db import Database

BUILD_EVERY_S = 2.0
FOLD_EVERY_S = 1.0
FOLD_SHARE = 0.05  # of the time
DRAW_EVERY_S = 1.0
TIDY_EVERY_S = 5.0
INDEX_EVERY_S = 5.0
RETAIN_EVERY_S = 600.0
log = logging.getLogger(__name__)


@asynccontextmanager
async def running(
    database: Database, hints: Hints, snapshots: Snapshots, retention: Retention, rollouts: Rollouts
) -> AsyncIterator[None]:
    """The background work, for as long as the block lasts."""

    async def build() -> None:
        snapshots.ordered.clear()
        while await snapshots.build_next():
            pass

    async def wait_for_order() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(snapshots.ordered.wait(), BUILD_EVERY_S)

    tasks = [
        asyncio.create_task(_repeat("building snapshots", build, wait_for_order)),
        asyncio.create_task(
            _repeat("indexing texts", lambda: index_texts(database), lambda: asyncio.sleep(INDEX_EVERY_S))
        ),
        asyncio.create_task(_repeat("tidying", lambda: tidy(database, hints), lambda: asyncio.sleep(TIDY_EVERY_S))),
        asyncio.create_task(_repeat("partitions", retention.tidy, lambda: asyncio.sleep(RETAIN_EVERY_S))),
        asyncio.create_task(_repeat("folding counters", lambda: fold(database), lambda: asyncio.sleep(0))),
        asyncio.create_task(_repeat("drawing ahead", rollouts.draw_ahead, lambda: asyncio.sleep(DRAW_EVERY_S))),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def tidy(database: Database, hints: Hints) -> None:
    """Forget expired `Idempotency-Key`s; complete orders whose last writer died between its commit and the check."""
    async with database.transaction() as session:
        await idempotency.expire(session)
    await complete_finished(database, hints)


async def fold(database: Database) -> None:
    """Fold counters until none is crowded, so that a reader sums little more than one row a counter; then rest a while."""
    started = time.monotonic()
    is_crowded = True
    while is_crowded:
        async with database.transaction() as session:
            is_crowded = await counters.fold(session)
    await asyncio.sleep(max(FOLD_EVERY_S, (time.monotonic() - started) / FOLD_SHARE))


async def _repeat(what: str, work: Callable[[], Awaitable[None]], wait: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception:
            log.exception("%s failed and is tried again", what)
            await asyncio.sleep(BUILD_EVERY_S)
        await wait()
