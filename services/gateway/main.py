"""Wiring of the gateway. `python -m shared.serve services.gateway.main:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.gateway import api
from services.gateway.keys import KeyCheck
from services.gateway.openapi import Documentation
from services.gateway.proxy import Proxy, connect
from shared import web
from shared.db import Database
from shared.log import configure_logging
from shared.settings import Settings


def create_app(settings: Settings | None = None) -> FastAPI:
    """The door, for these settings or those of the environment."""
    configure_logging()
    settings = settings or Settings()
    database = Database(settings.database_url)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with connect() as http:
            app.state.proxy = Proxy(http, settings)
            app.state.documentation = Documentation(http, settings)
            yield
        await database.close()

    app = web.create_app("gateway", settings, lifespan, database.ping, check_service_token=False, body_limits=None)
    app.add_middleware(api.RequireKey, check=KeyCheck(database))
    api.replace_document(app)
    app.include_router(api.proxy_router)
    return app
