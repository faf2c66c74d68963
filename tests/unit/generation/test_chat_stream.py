"""Of a streamed answer only the server's time counts, and it ends with the reason why no more comes."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from services.generation.client.engine_errors import EngineDownError
from services.generation.service.chat import _as_it_is, _engine_trouble, _external_trouble
from services.generation.service.chat_stream import ChatStream, Line, Turn
from shared.errors import HeadwaterError


async def lines(pauses_s: Sequence[float], content: str = '{"n": 1}') -> AsyncIterator[str]:
    for pause_s in pauses_s:
        await asyncio.sleep(pause_s)
        yield f"data: {content}"
        yield ""


def named(error: Exception) -> HeadwaterError:
    return _external_trouble("http://teacher", error)


def stream(source: AsyncIterator[str], turn: Turn = _as_it_is, silence_s: float = 9.0, timeout_s: float = 9.0) -> Any:
    return ChatStream(AsyncExitStack(), source, "p", turn, named, silence_s=silence_s, timeout_s=timeout_s).events()


def code(event: str) -> str:
    return str(json.loads(event.removeprefix("data: "))["error"]["code"])


async def test_the_time_that_the_client_takes_to_read_is_not_the_servers() -> None:
    read = []
    async for event in stream(lines([0.0] * 3), silence_s=0.05, timeout_s=0.05):
        await asyncio.sleep(0.1)
        read.append(event)
    assert read == ['data: {"n": 1, "model": "p"}\n\n'] * 3


@pytest.mark.parametrize(("pauses_s", "silence_s", "timeout_s"), [([0.0, 60.0], 0.1, 90.0), ([0.04] * 99, 90.0, 0.1)])
async def test_a_server_that_is_silent_or_never_ends_is_left(
    pauses_s: list[float], silence_s: float, timeout_s: float
) -> None:
    read = [event async for event in stream(lines(pauses_s), silence_s=silence_s, timeout_s=timeout_s)]
    assert len(read) <= len(pauses_s), "not all of it came"
    assert code(read[-1]) == "external_timeout"


async def test_an_engine_that_is_given_up_ends_it_by_name() -> None:
    async def turn(work: Coroutine[Any, Any, Line]) -> Line:
        work.close()
        raise EngineDownError("it was given up")

    events = ChatStream(AsyncExitStack(), lines([0.0]), "p", turn, _engine_trouble, silence_s=9, timeout_s=9).events()
    read = [event async for event in events]
    assert [code(event) for event in read] == ["engine_down"]


@pytest.mark.parametrize("content", ["{nonsense", '{"a": NaN}', '{"a": "\\ud800"}', '{"a":' * 100_000])
async def test_an_event_that_cannot_be_passed_on_ends_it_by_name(content: str) -> None:
    read = [event async for event in stream(lines([0.0], content))]
    assert [code(event) for event in read] == ["stream_broken"]
