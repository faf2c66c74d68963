"""Wiring of the training API."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.training import api, gauges
from services.training.client import open_peers
from services.training.settings import TrainingSettings
from shared import web
from shared.bus import create_celery
from shared.db import Database
from shared.log import configure_logging

ADMISSION_DEADLINE_S = 5.0


def create_app(settings: TrainingSettings | None = None) -> FastAPI:
    """The API process. Reads the environment when no settings are given."""
    resolved = settings or TrainingSettings()
    configure_logging()
    database = Database(resolved.database_url)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        refreshing = asyncio.create_task(gauges.keep(database))
        async with open_peers(resolved, ADMISSION_DEADLINE_S) as peers:
            app.state.peers = peers
            yield
        refreshing.cancel()
        await asyncio.wait((refreshing,))
        await database.close()

    app = web.create_app("training", resolved, lifespan, database.ping)
    app.state.database = database
    app.state.celery = create_celery("training", resolved.redis_url)
    app.include_router(api.router)
    return app
