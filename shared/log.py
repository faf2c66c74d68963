"""Logging to stderr, one line a record; the supervisor or the cluster adds process names and files."""

import logging
import sys


def configure_logging(level: str = "INFO") -> None:
    """Install the one handler; libraries that speak of every request are kept to warnings."""
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for noisy in ("httpx", "httpcore", "asyncio", "fsspec", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
