"""One call for many who ask at about the same time, and never an answer from before one asked."""

import asyncio

import pytest

from services.generation.service.shared_call import Shared


class Engine:
    """Answers with how often it was asked; `hold` keeps it from answering."""

    def __init__(self) -> None:
        self.asked = 0
        self.hold = asyncio.Event()
        self.hold.set()

    async def ask(self) -> int:
        self.asked += 1
        number = self.asked
        await self.hold.wait()
        return number


async def test_those_who_come_during_a_call_share_the_next():
    engine = Engine()
    shared = Shared(engine.ask)
    engine.hold.clear()
    first = asyncio.create_task(shared.after_now())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(shared.after_now()) for _ in range(5)]
    await asyncio.sleep(0)
    engine.hold.set()
    assert await first == 1
    assert await asyncio.gather(*others) == [2] * 5
    assert await shared.after_now() == 3


async def test_a_failure_is_that_calls_alone_and_leaving_takes_it_from_nobody():
    calls = iter([OSError("down"), None, None])

    async def ask() -> str:
        await asyncio.sleep(0)
        if (error := next(calls)) is not None:
            raise error
        return "up"

    shared = Shared(ask)
    with pytest.raises(OSError, match="down"):
        await shared.after_now()
    leaving, staying = (asyncio.create_task(shared.after_now()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == "up"
