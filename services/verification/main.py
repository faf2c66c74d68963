"""Wiring of the verification service: `python -m shared.serve services.verification.main:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.verification.api import create_router
from services.verification.cache import Cache, connect
from services.verification.pool import WorkerPool
from services.verification.processes import worker_command
from services.verification.service import Verifier
from services.verification.settings import VerificationSettings
from shared import web
from shared.log import configure_logging
from shared.settings import Settings

BODY_LIMITS = {"/v1/verdicts": 64 << 20}


def create_app() -> FastAPI:
    """The app; its worker processes live as long as its lifespan."""
    configure_logging()
    own, settings = VerificationSettings(), Settings()
    cache = Cache(own.cache_entries, connect(settings.redis_url))
    pool = WorkerPool(worker_command(own.memory_bytes), own.workers, own.deadline_s)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        pool.start()
        try:
            yield
        finally:
            await pool.close()
            await cache.close()

    app = web.create_app("verification", settings, lifespan, pool.check, body_limits=BODY_LIMITS)
    app.include_router(create_router(Verifier(pool, cache)))
    return app
