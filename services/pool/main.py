"""Wiring of the pool: `python -m shared.serve services.pool.main:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from fastapi import FastAPI
from starlette.middleware import Middleware

from services.pool import background
from services.pool.api import create_router
from services.pool.api.documents import REQUEST_BODIES
from services.pool.api.idempotency import IdempotencyKeys
from services.pool.hints import BusHints, Hints
from services.pool.repository import campaigns
from services.pool.service.assignments import Assignments
from services.pool.service.batches import Batches
from services.pool.service.difficulty import Difficulty
from services.pool.service.groups import Groups
from services.pool.service.ingest import Ingest
from services.pool.service.lineage import Lineage
from services.pool.service.listing import Lists
from services.pool.service.orders import Orders
from services.pool.service.questions import Questions
from services.pool.service.retention import Retention
from services.pool.service.retraction import Retractions
from services.pool.service.reverification import Reverifications
from services.pool.service.rollouts import Rollouts
from services.pool.service.snapshots import Snapshots
from services.pool.service.verifications import Verifications
from shared import web
from shared.bus import create_celery
from shared.db import Database
from shared.log import configure_logging
from shared.settings import Settings

# Questions are read item by item, groups record batch by record batch.
BODY_LIMITS = {"/v1/questions": None, "/v1/groups": None}


def create_app(settings: Settings | None = None, hints: Hints | None = None) -> FastAPI:
    """The app; settings are those of the environment and hints go over the bus, unless given."""
    configure_logging()
    settings = settings or Settings()
    database = Database(settings.database_url)
    hints = hints or BusHints(create_celery("pool", settings.redis_url))
    snapshots = Snapshots(database, hints, settings.artifacts_url)
    retention = Retention(database, settings.token_retention_days)
    rollouts = Rollouts(database)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with background.running(database, hints, snapshots, retention, rollouts):
            yield
        await hints.close()
        await database.close()

    async def ready() -> None:
        async with database.transaction() as session:
            await campaigns.exists(session, UUID(int=0))

    keys = Middleware(IdempotencyKeys, database=database)
    app = web.create_app(
        "pool", settings, lifespan, ready, body_limits=BODY_LIMITS, request_bodies=REQUEST_BODIES, inner=[keys]
    )
    app.include_router(
        create_router(
            Questions(database),
            Ingest(database, hints),
            Orders(database, hints),
            Assignments(database, hints, rollouts),
            Groups(database, hints, retention),
            snapshots,
            Batches(database, hints, rollouts),
            Difficulty(database),
            Lists(database),
            Lineage(database),
            Retractions(database, hints),
            Reverifications(database, hints),
            Verifications(database, hints),
        )
    )
    return app
