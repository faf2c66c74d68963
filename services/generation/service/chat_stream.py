"""A streamed answer as server-sent events: until the last, or until one that says why no more come.

Only the server's time counts, never that in which the client reads: each line is waited for on its own, and no time limit
spans a `yield`, where it would end whatever the reader does at that moment.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from services.generation.client.engine_errors import EngineDownError
from services.generation.client.external import ExternalError
from shared.errors import HeadwaterError, UnavailableError

Line = str | None
Turn = Callable[[Coroutine[Any, Any, Line]], Awaitable[Line]]


class ChatStream:
    """The lines of one server. Whoever holds this closes it: that drops the request in the server.

    `turn` waits for one line, and raises what else may end the stream. The server has `silence_s` for a line, and `timeout_s`
    for all of them.
    """

    def __init__(
        self,
        held: AsyncExitStack,
        lines: AsyncIterator[str],
        model: str,
        turn: Turn,
        named: Callable[[Exception], HeadwaterError],
        *,
        silence_s: float,
        timeout_s: float,
    ) -> None:
        self._held = held
        self._lines = lines
        self._model = model
        self._turn = turn
        self._named = named
        self._silence_s = silence_s
        self._left_s = timeout_s

    async def close(self) -> None:
        """Leave the server, and whatever was held for it."""
        await self._held.aclose()

    async def events(self) -> AsyncIterator[str]:
        """One `data: …` block at a time; a stream that breaks or is late ends with an event `error`, as OpenAI's clients know it."""
        try:
            while (line := await self._next()) is not None:
                if line.startswith("data: {"):
                    event = json.loads(line.removeprefix("data: ")) | {"model": self._model}
                    yield _event(event)
                elif line:
                    yield f"{line}\n\n"
        except (TimeoutError, ExternalError, EngineDownError) as error:
            yield _error(self._named(error))
        except (ValueError, RecursionError):
            yield _error(UnavailableError("stream_broken", "The server sent an event that cannot be read; ask again."))

    async def _next(self) -> Line:
        clock = asyncio.get_running_loop().time
        began = clock()
        async with asyncio.timeout(min(self._silence_s, self._left_s)):
            line = await self._turn(_line(self._lines))
        self._left_s -= clock() - began
        return line


async def _line(lines: AsyncIterator[str]) -> Line:
    return await anext(lines, None)


def _event(event: dict[str, Any]) -> str:
    """Raises ValueError for a number or a character that cannot be passed on."""
    written = json.dumps(event, ensure_ascii=False, allow_nan=False)
    written.encode()
    return f"data: {written}\n\n"


def _error(error: HeadwaterError) -> str:
    return _event({"error": {"code": error.code, "message": error.message}})
