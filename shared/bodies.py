"""The body of a request: how large it may be, of how many values, and how long its sender may be silent. ASGI middleware.

A service's routes take MAX_BODY_BYTES unless `limits` names another limit for a path (None: the route reads its body as a
stream and bounds what it holds itself). A length that is announced is judged before anything is read; what comes without
one, or is longer than it said, is counted. A body with a limit is handed on when all of it is there.
"""

import asyncio
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.contracts.problems import Problem
from shared.json_shape import shape_fault

MAX_BODY_BYTES = 4 << 20
SILENCE_S = 60.0
_QUICK_BYTES = 1 << 18  # judged in a few milliseconds, without a thread


class BodyError(HTTPException):
    """A body that is not read on. An HTTPException, which FastAPI lets through while it reads a body."""

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(status, message)
        self.code = code

    def problem(self) -> Problem:
        """The wire form."""
        return Problem(code=self.code, message=self.detail)


class EndSilence:
    """Waits a share of `SILENCE_S` for each part of a body, and no longer."""

    def __init__(self, app: ASGIApp, share: float = 1.0) -> None:
        self._app = app
        self._share = share

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a `receive` that loses patience. Raises there: BodyError `body_timeout`."""
        await self._app(scope, _heard(receive, self._share) if scope["type"] == "http" else receive, send)


class LimitBody:
    """Refuses bodies over the limit of their path, and JSON of too many parts."""

    def __init__(self, app: ASGIApp, limits: Mapping[str, int | None]) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a `receive` that judges. Raises there: BodyError `body_too_large`, `body_too_complex`."""
        is_written = scope["type"] == "http" and scope["method"] in ("POST", "PUT", "PATCH")
        limit = self._limits.get(scope["path"], MAX_BODY_BYTES) if is_written else None
        await self._app(scope, receive if limit is None else _judged(scope, receive, limit), send)


async def refuse_shape(body: bytes | bytearray) -> None:
    """Raises: BodyError `body_too_complex` for JSON of more parts than anybody means."""
    fault = shape_fault(body) if len(body) <= _QUICK_BYTES else await asyncio.to_thread(shape_fault, body)
    if fault is not None:
        raise BodyError("body_too_complex", 413, f"The body {fault}; send less at once.")


def _heard(receive: Receive, share: float) -> Receive:
    is_whole = False

    async def heard() -> Message:
        nonlocal is_whole
        if is_whole:
            return await receive()  # nothing more is due: this waits for the end of the connection
        try:
            async with asyncio.timeout(share * SILENCE_S):
                message = await receive()
        except TimeoutError as error:
            sentence = f"Nothing came for {share * SILENCE_S:.0f} s in the middle of the body; send it again."
            raise BodyError("body_timeout", 408, sentence) from error
        is_whole = not message.get("more_body", False)
        return message

    return heard


def _judged(scope: Scope, receive: Receive, limit_bytes: int) -> Receive:
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    is_too_large = announced.isdigit() and int(announced[:20]) > limit_bytes
    is_whole = False

    async def judged() -> Message:
        nonlocal is_whole
        if is_whole:
            return await receive()
        body, more = bytearray(), True
        while more:
            if is_too_large or len(body) > limit_bytes:
                sentence = f"The body is larger than the {limit_bytes:,} bytes that this address takes; send less."
                raise BodyError("body_too_large", 413, sentence)
            message = await receive()
            if message["type"] != "http.request":
                return message
            body += message.get("body", b"")
            more = message.get("more_body", False) or len(body) > limit_bytes
        whole = bytes(body)
        await refuse_shape(whole)
        is_whole = True
        return {"type": "http.request", "body": whole, "more_body": False}

    return judged
