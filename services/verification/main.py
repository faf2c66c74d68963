"""Wiring of the verification service: `python -m shared.serve services.verification.main:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.verification import api
from services.verification.cache import Cache, connect
from services.verification.kinds.code import Code
from services.verification.kinds.rubric import ANSWERS_AT_ONCE, Panel
from services.verification.pool import WorkerPool
from services.verification.processes import worker_command
from services.verification.sandbox.start import Sandbox
from services.verification.service import VERIFIERS, Judges, Verifier
from services.verification.settings import VerificationSettings
from shared import web
from shared.contracts.questions import QuestionKind
from shared.contracts.reverification import CheckLimit, Verifiers
from shared.log import configure_logging
from shared.settings import Settings
from shared.web import service_client

BODY_LIMITS = {"/v1/verdicts": 64 << 20}


def create_app() -> FastAPI:
    """The app; its worker processes live as long as its lifespan."""
    configure_logging()
    own, settings = VerificationSettings(), Settings()
    cache = Cache(own.cache_entries, connect(settings.redis_url))
    pool = WorkerPool(worker_command(own.memory_bytes), own.workers, own.deadline_s)
    limits = {
        QuestionKind.MATH: CheckLimit(deadline_s=own.deadline_s, at_once=own.workers),
        QuestionKind.CODE: CheckLimit(deadline_s=own.code_deadline_s, at_once=own.workers),
        QuestionKind.RUBRIC: CheckLimit(deadline_s=own.judge_deadline_s, at_once=ANSWERS_AT_ONCE),
    }
    code = Code(Sandbox(own.code_memory_bytes), own.workers, own.code_deadline_s)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        pool.start()
        try:
            async with service_client(settings.generation_url, settings) as generation:
                panel = Panel(generation, own.judge, own.rubric_weights, own.rubric_threshold, own.judge_deadline_s)
                judges: dict[QuestionKind, Judges] = {
                    QuestionKind.MATH: pool,
                    QuestionKind.CODE: code,
                    QuestionKind.RUBRIC: panel,
                }
                app.state.verifier = Verifier(judges, cache)
                await code.try_out()
                yield
        finally:
            await pool.close()
            await cache.close()

    app = web.create_app("verification", settings, lifespan, pool.check, body_limits=BODY_LIMITS)
    app.state.verifiers = Verifiers(verifiers=VERIFIERS, limits=limits)
    app.include_router(api.router)
    return app
