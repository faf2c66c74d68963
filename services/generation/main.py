"""Wiring of the generation API: `python -m shared.serve services.generation.main:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncConnection

from services.generation.api import Services, chat, policies, samples
from services.generation.client.external import ExternalClient
from services.generation.service.chat import ChatService
from services.generation.service.engines import EngineService
from services.generation.service.fleet import Fleet
from services.generation.service.policies import PolicyService
from services.generation.service.pruning import PruningService
from services.generation.service.sampling import SamplingService
from services.generation.service.weights import WeightsStore
from services.generation.settings import GenerationSettings
from shared import web
from shared.db import Database
from shared.log import configure_logging

BODY_LIMITS = {"/v1/samples": 64 << 20}
MESSAGE = {
    "type": "object",
    "properties": {"role": {"type": "string"}, "content": {"type": "string"}},
    "required": ["role"],
}
CHAT = {
    "type": "object",
    "title": "ChatRequest",
    "description": "As OpenAI's API takes it. `model` is a policy's id, or its name where only one campaign has it.",
    "properties": {"model": {"type": "string"}, "messages": {"type": "array", "items": MESSAGE}},
    "required": ["model", "messages"],
}
COMPLETION = CHAT | {
    "title": "CompletionRequest",
    "properties": {"model": {"type": "string"}, "prompt": {"type": "string"}},
    "required": ["model", "prompt"],
}
REQUEST_BODIES = {
    "create_chat_completion": {"application/json": CHAT},
    "create_completion": {"application/json": COMPLETION},
}


def create_app(settings: GenerationSettings | None = None) -> FastAPI:
    """The application; nothing is connected before its lifespan starts.

    Ready means: the database answers. The engines' state is in `/v1/engine`, for they take minutes to start.
    """
    settings = settings or GenerationSettings()
    configure_logging()
    database = Database(settings.database_url)
    engine_model = _directory(settings.engine_model)

    async def ready() -> None:
        async with database.engine.connect() as connection:
            await _ping(connection)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        fleet = Fleet(settings)
        external = ExternalClient(settings.addresses())
        weights = WeightsStore(settings.weights_cache, settings.artifacts_url, engine_model)
        registry = PolicyService(database, fleet, external, weights)
        pruning = PruningService(database, fleet, weights, registry)
        app.state.services = Services(
            policies=registry,
            sampling=SamplingService(registry, fleet, external),
            chat=ChatService(registry, fleet, external),
            engines=EngineService(settings, engine_model, fleet),
            pruning=pruning,
        )
        try:
            async with fleet.running(), pruning.running():
                yield
        finally:
            await external.close()
            await database.close()

    app = web.create_app(
        "generation", settings, lifespan, ready, body_limits=BODY_LIMITS, request_bodies=REQUEST_BODIES
    )
    for subject in (policies, samples, chat):
        app.include_router(subject.router)
    return app


async def _ping(connection: AsyncConnection) -> None:
    await connection.exec_driver_sql("SELECT 1")


def _directory(path: str) -> Path | None:
    directory = Path(path)
    return directory.absolute() if path and directory.is_dir() else None
