"""Work for a client, until it leaves: what nobody waits for any more is cancelled, down to the engine or the worker that does it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

T = TypeVar("T")


async def until_left(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`; None when the client, whose body was read, left before. Cancels `work` once at most."""
    coming, left = asyncio.create_task(work), asyncio.create_task(_left(receive))
    try:
        await asyncio.wait((coming, left), return_when=asyncio.FIRST_COMPLETED)
        return coming.result() if coming.done() else None
    finally:
        left.cancel()
        coming.cancel()
        await asyncio.wait((coming,))


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
