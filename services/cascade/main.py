"""Wiring of the cascade's API. `python -m shared.serve services.cascade.main:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.cascade.api import campaigns, lineage
from services.cascade.client import connect
from services.cascade.service.submission import JSON_TYPE, TOML_TYPE
from shared import web
from shared.contracts.campaigns import CampaignIn
from shared.db import Database
from shared.log import configure_logging
from shared.openapi import BYTES
from shared.settings import Settings

REQUEST_BODIES = {"create_campaign": {JSON_TYPE: CampaignIn, TOML_TYPE: BYTES}}


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API, for these settings or those of the environment."""
    configure_logging()
    settings = settings or Settings()
    database = Database(settings.database_url)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with connect(settings) as peers:
            app.state.database, app.state.peers = database, peers
            yield
        await database.close()

    app = web.create_app("cascade", settings, lifespan, database.ping, request_bodies=REQUEST_BODIES)
    app.include_router(campaigns.router)
    app.include_router(lineage.router)
    return app
