"""The size of a request's body: an ASGI middleware, so that no more than the limit is ever held.

A service's routes take MAX_BODY_BYTES unless `limits` names another limit for a path (None: the route reads its body as a
stream and bounds what it holds itself). A length that is announced is judged before anything is read; what comes without
one, or is longer than it said, is counted.
"""

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 4 << 20


class BodyTooLargeError(HTTPException):
    """413. An HTTPException, which FastAPI lets through while it reads a body."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(413, f"The body is larger than the {limit_bytes:,} bytes that this address takes; send less.")


class LimitBody:
    """Refuses bodies over the limit of their path."""

    def __init__(self, app: ASGIApp, limits: Mapping[str, int | None]) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a `receive` that counts."""
        is_written = scope["type"] == "http" and scope["method"] in ("POST", "PUT", "PATCH")
        limit = self._limits.get(scope["path"], MAX_BODY_BYTES) if is_written else None
        await self._app(scope, receive if limit is None else _counted(scope, receive, limit), send)


def _counted(scope: Scope, receive: Receive, limit_bytes: int) -> Receive:
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    is_too_large = announced.isdigit() and int(announced[:20]) > limit_bytes
    seen_bytes = 0

    async def counted() -> Message:
        nonlocal seen_bytes
        if is_too_large:
            raise BodyTooLargeError(limit_bytes)
        message = await receive()
        seen_bytes += len(message.get("body", b""))
        if seen_bytes > limit_bytes:
            raise BodyTooLargeError(limit_bytes)
        return message

    return counted
