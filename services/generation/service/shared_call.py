"""One call for many who ask the same at about the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Calls `ask` for whoever wants its answer; those who come while one is under way share the next."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._running: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    async def after_now(self) -> T:
        """An answer of a call that begins after now. Raises what `ask` raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._call(self._running))
        return await asyncio.shield(self._next)

    async def _call(self, before: "asyncio.Task[T] | None") -> T:
        if before is not None:
            await asyncio.wait([before])
        self._running, self._next = self._next, None
        return await self._ask()
