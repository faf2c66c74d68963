"""A stream releases what it holds however it ends, and never while its pieces are being made."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.types import Message, Receive, Scope, Send

from shared.streams import HeldStream

SCOPE: Scope = {"type": "http", "path": "/v1/samples", "asgi": {"spec_version": "2.3"}}


class Work:
    """Two pieces, after which it waits until it is cancelled, and takes a while to end."""

    def __init__(self) -> None:
        self.waits = asyncio.Event()
        self.ended = False
        self.released = 0
        self.pieces = self._pieces()

    async def _pieces(self) -> AsyncGenerator[str, None]:
        try:
            yield "one"
            yield "two"
            self.waits.set()
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            self.ended = True

    async def release(self) -> None:
        await self.pieces.aclose()
        self.released += 1


class Client:
    """Takes `patience` messages, then nothing more; it is gone when `gone` is set."""

    def __init__(self, patience: int = 99) -> None:
        self.patience = patience
        self.taken: list[bytes] = []
        self.gone = asyncio.Event()

    async def send(self, message: Message) -> None:
        if len(self.taken) == self.patience:
            await asyncio.Event().wait()
        self.taken.append(message.get("body", b""))

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}


def started(work: Work, receive: Receive, send: Send) -> "asyncio.Task[None]":
    stream = HeldStream(work.pieces, work.release, "text/plain", reader_silence_s=0.05)
    return asyncio.create_task(stream(SCOPE, receive, send))


async def test_a_client_that_leaves_in_the_middle_of_a_piece_ends_it_first() -> None:
    work, client = Work(), Client()
    stream = started(work, client.receive, client.send)
    await work.waits.wait()
    client.gone.set()
    await stream
    assert (client.taken, work.ended, work.released) == ([b"", b"one", b"two"], True, 1)


async def test_cancelled_twice_it_still_ends_and_releases() -> None:
    work, client = Work(), Client()
    stream = started(work, client.receive, client.send)
    await work.waits.wait()
    for _ in range(2):
        stream.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await stream
    while not work.released:
        await asyncio.sleep(0)
    assert work.ended


@pytest.mark.parametrize("patience", [0, 2])
async def test_a_client_that_reads_nothing_holds_nothing(patience: int) -> None:
    work, client = Work(), Client(patience)
    await started(work, client.receive, client.send)
    assert work.released == 1
    assert work.ended == (patience > 0), "what was never begun has nothing to end"
