"""Celery in: a hint to execute a run. Acknowledged early; the run's lease in Postgres decides, never the message.

One run at a time: `--concurrency 1`. A worker that is asked to stop ends its trainer and gives the run back.
"""

import asyncio
import functools
import multiprocessing
import os
import socket
from uuid import UUID

from celery.signals import worker_ready, worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError

from services.training.attempt import attempt_run, log, waiting_runs
from services.training.leftovers import remove_leftovers
from services.training.settings import TrainingSettings
from shared.bus import ADVANCE_TASK, EXECUTE_TASK, create_celery, hint

# Set in the worker's main process, read in its pool process, which is a fork of it.
_stopping = multiprocessing.Event()


@functools.cache
def _settings() -> TrainingSettings:
    return TrainingSettings()


celery = create_celery("training", _settings().redis_url)


@celery.task(name=EXECUTE_TASK)
def execute(run_id: str) -> bool:
    """Execute a run if its lease is free; whether it was."""
    worker = f"{socket.gethostname()}:{os.getpid()}"
    attempt = asyncio.run(attempt_run(UUID(run_id), _settings(), worker, _stopping))
    if attempt.campaign_id is not None:
        hint(celery, ADVANCE_TASK, str(attempt.campaign_id))
    if attempt.executed or attempt.campaign_id is not None:
        _remove_leftovers(UUID(run_id))
    return attempt.executed


def _remove_leftovers(run_id: UUID | None = None) -> None:
    try:
        asyncio.run(remove_leftovers(_settings(), run_id))
    except (SQLAlchemyError, OSError) as error:
        log.warning("could not remove what runs left (%s); the worker's next start does", error)


@worker_ready.connect
def look_for_work(**_: object) -> None:
    """A worker that starts needs no hint: it looks once at what waits."""
    try:
        for run_id in asyncio.run(waiting_runs(_settings())):
            hint(celery, EXECUTE_TASK, str(run_id))
    except (SQLAlchemyError, OSError) as error:
        log.warning("could not look for waiting runs (%s); the next sweep sends hints", error)
    _remove_leftovers()


@worker_shutting_down.connect
def stop_trainer(**_: object) -> None:
    """Give the running run back at once, instead of letting its lease expire."""
    _stopping.set()
