"""An answer that comes piece by piece and holds something meanwhile: a place in an engine, prompts at work."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from shared.leaving import until_left

log = logging.getLogger(__name__)


class _ReaderSilentError(Exception):
    """The client takes nothing."""


class HeldStream(StreamingResponse):
    """Calls `release` when it ends: after the last piece, when the client left, or when it reads nothing for `reader_silence_s`.

    A `finally` of the pieces would not do: it does not run for pieces that nobody began to read, and late for those that were
    left. Sending and `release` are one task, cancelled once: Starlette's own streams are cancelled at every await until they end.
    """

    def __init__(
        self,
        pieces: AsyncIterator[str],
        release: Callable[[], Awaitable[None]],
        media_type: str,
        reader_silence_s: float,
    ) -> None:
        super().__init__(pieces, media_type=media_type)
        self._release = release
        self._reader_silence_s = reader_silence_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces."""
        try:
            await until_left(receive, self._sent(send))
        except _ReaderSilentError:
            log.warning("a client of %s read nothing for %.0f s; it is cut off", scope["path"], self._reader_silence_s)

    async def _sent(self, send: Send) -> None:
        async def bounded(message: Message) -> None:
            try:
                async with asyncio.timeout(self._reader_silence_s):
                    await send(message)
            except TimeoutError as error:
                raise _ReaderSilentError from error

        try:
            await self.stream_response(bounded)
        finally:
            await self._release()
