"""Batches out of a queue: the first item waits for company, but not long."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def next_batch(queue: "asyncio.Queue[T]", weigh: Callable[[T], int], limit: int, linger_s: float) -> list[T]:
    """Wait for an item; then take what comes within `linger_s`, until the batch weighs `limit` or more."""
    batch = [await queue.get()]
    weight = weigh(batch[0])
    try:
        async with asyncio.timeout(linger_s):
            while weight < limit:
                batch.append(await queue.get())
                weight += weigh(batch[-1])
    except TimeoutError:
        pass
    return batch
