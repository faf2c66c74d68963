"""Hints to the workers, sent after commit from a thread, so that a slow or dead broker delays no answer."""

import asyncio
import logging
from typing import Protocol
from uuid import UUID

from celery import Celery

from shared.bus import ADVANCE_TASK, DRAIN_TASK, hint

log = logging.getLogger(__name__)


class Hints(Protocol):
    """What the pool tells others: there may be work."""

    def drain(self) -> None:
        """Sampling workers may find assignments."""

    def advance(self, campaign_id: UUID) -> None:
        """The cascade may find a campaign changed."""

    async def close(self) -> None:
        """Wait for what is being sent."""


class BusHints:
    """Hints over the bus. One that is still being sent is not sent again."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._sending: dict[tuple[str, ...], asyncio.Task[None]] = {}

    def drain(self) -> None:
        """Send DRAIN."""
        self._send(DRAIN_TASK)

    def advance(self, campaign_id: UUID) -> None:
        """Send ADVANCE for a campaign."""
        self._send(ADVANCE_TASK, str(campaign_id))

    async def close(self) -> None:
        """Wait for what is being sent."""
        await asyncio.gather(*self._sending.values(), return_exceptions=True)

    def _send(self, *message: str) -> None:
        if message in self._sending:
            return
        task = asyncio.create_task(asyncio.to_thread(hint, self._celery, *message))
        self._sending[message] = task
        task.add_done_callback(lambda done: self._sent(message, done))

    def _sent(self, message: tuple[str, ...], task: asyncio.Task[None]) -> None:
        self._sending.pop(message, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("hint %s was not sent (%s); the next sweep repeats it", message[0], error)
