"""How long to wait for a dependency that fails: longer each time, as it asks, and not for ever."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.sampling.client import TransientError

T = TypeVar("T")
FIRST_PAUSE_S = 0.25
MAX_PAUSE_S = 10.0


class Patience:
    """Pauses between failures in a row; over `patience_s` after the first of them."""

    def __init__(
        self,
        patience_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_s = patience_s
        self._sleep = sleep
        self._clock = clock
        self._failing_since: float | None = None
        self._pause_s = FIRST_PAUSE_S

    def succeeded(self) -> None:
        """The dependency answered: the next failure is a first one."""
        self._failing_since = None
        self._pause_s = FIRST_PAUSE_S

    async def wait(self, failure: TransientError) -> None:
        """Wait before the next try, at least as long as was asked for. Raises the failure when patience is over."""
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
        left_s = self._failing_since + self._patience_s - now
        asked_s = failure.retry_after_s or 0.0
        if left_s <= 0 or asked_s > self._patience_s:
            raise failure
        await self._sleep(max(asked_s, min(self._pause_s * random.uniform(0.75, 1.25), left_s)))
        self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)


async def persist(work: Callable[[], Awaitable[T]], patience: Patience) -> T:
    """Repeat `work` until it isn't a TransientError. Raises the last one when patience is over, and any other error at once."""
    while True:
        try:
            return await work()
        except TransientError as failure:
            await patience.wait(failure)
