"""Work for a client, until it leaves: what nobody waits for any more is cancelled, down to the engine or the worker that does it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

T = TypeVar("T")


async def client_left(request: Request) -> None:
    """Returns when the client of a request whose body was read has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def until_left(left: "asyncio.Task[None]", work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`; None when `left` came first."""
    coming = asyncio.ensure_future(work)
    try:
        await asyncio.wait((coming, left), return_when=asyncio.FIRST_COMPLETED)
        return coming.result() if coming.done() else None
    finally:
        coming.cancel()
        await asyncio.wait((coming,))
