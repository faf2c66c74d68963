"""Bus in: the hint that there may be work. `celery -A services.sampling.tasks:celery worker -Q sampling`, prefork, torch-free.

One drain a process works at a time: a hint that comes meanwhile returns at once. SIGTERM lets a drain end early.
"""

import asyncio
import logging
import multiprocessing
import signal
import threading
from typing import Any

from celery import signals

from services.sampling.main import drain_once
from services.sampling.settings import SamplingSettings
from shared.bus import DRAIN_TASK, create_celery
from shared.log import configure_logging
from shared.settings import Settings

log = logging.getLogger(__name__)
celery = create_celery("sampling", Settings().redis_url)
_draining = threading.Lock()
# Shared with the pool children by fork. Without a lock: a child that is killed while holding one would block all others.
_stopping = multiprocessing.RawValue("b", 0)


def is_stopping() -> bool:
    """Whether this worker was asked to end."""
    return bool(_stopping.value)


@celery.task(name=DRAIN_TASK)
def drain() -> None:
    """Lease assignments and work on them until the pool gives nothing more."""
    if is_stopping() or not _draining.acquire(blocking=False):
        return
    try:
        report = asyncio.run(drain_once(Settings(), SamplingSettings(), is_stopping))
    finally:
        _draining.release()
    if report.groups or report.failed or report.abandoned:
        groups, failed = dict(report.groups), dict(report.failed)
        log.info("drained: groups %s, given back %s, let go %d (%s)", groups, failed, report.abandoned, report.ended)


@signals.setup_logging.connect
def _log_like_everybody(**_: Any) -> None:
    configure_logging()


@signals.worker_shutting_down.connect
def _stop_drains(*_: Any, **__: Any) -> None:
    _stopping.value = 1


@signals.worker_process_init.connect
def _stop_on_sigterm(**_: Any) -> None:
    # A signal to the whole process group reaches the children as well: they finish like their parent asks.
    signal.signal(signal.SIGTERM, _stop_drains)
