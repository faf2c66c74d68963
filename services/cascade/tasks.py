"""Bus in: one campaign on a hint, all of them every two seconds. Messages carry ids only.

Each task has an event loop and a database of its own: a worker's process keeps nothing between two tasks.
Celery: `celery -A services.cascade.tasks:celery worker -Q control`, and `beat`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from celery.signals import setup_logging

from services.cascade.client import Peers, connect
from services.cascade.service.advance import Advancer
from shared.bus import ADVANCE_TASK, CONTROL_QUEUE, DRAIN_TASK, EXECUTE_TASK, create_celery, hint
from shared.db import Database
from shared.errors import HeadwaterError
from shared.log import configure_logging
from shared.settings import Settings

SWEEP_TASK = "cascade.sweep"
SWEEP_INTERVAL_S = 2.0
HINT_EXPIRES_S = 5.0  # the next sweeps send it again, so hints never pile up
log = logging.getLogger(__name__)

celery = create_celery("cascade", Settings().redis_url)
celery.conf.beat_scheduler = "redbeat.RedBeatScheduler"
celery.conf.beat_schedule = {
    SWEEP_TASK: {
        "task": SWEEP_TASK,
        "schedule": SWEEP_INTERVAL_S,
        "options": {"queue": CONTROL_QUEUE, "expires": HINT_EXPIRES_S},
    }
}


@setup_logging.connect
def _logging(**_: Any) -> None:
    configure_logging()


@celery.task(name=ADVANCE_TASK)
def advance(campaign_id: str) -> None:
    """Advance one campaign."""
    asyncio.run(_advance(UUID(campaign_id)))


@celery.task(name=SWEEP_TASK)
def sweep() -> None:
    """Send again the hints that somebody may be waiting for, and advance every unfinished campaign."""
    hint(celery, DRAIN_TASK, expires_s=HINT_EXPIRES_S)
    asyncio.run(_sweep())


@asynccontextmanager
async def _wired() -> AsyncIterator[tuple[Advancer, Peers]]:
    settings = Settings()
    database = Database(settings.database_url)
    try:
        async with connect(settings) as peers:
            yield Advancer(database, peers), peers
    finally:
        await database.close()


async def _advance(campaign_id: UUID) -> None:
    async with _wired() as (advancer, _):
        await advancer.advance(campaign_id)


async def _sweep() -> None:
    async with _wired() as (advancer, peers):
        await _hint_runs(peers)
        await advancer.advance_all()


async def _hint_runs(peers: Peers) -> None:
    try:
        runs = await peers.training.queued_runs()
    except HeadwaterError as error:
        log.warning("%s; hints for queued runs wait for the next sweep", error.message)
        return
    for run in runs:
        hint(celery, EXECUTE_TASK, str(run.id), expires_s=HINT_EXPIRES_S)
