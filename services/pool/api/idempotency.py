"""`Idempotency-Key` on every write: said again, a request gets its first answer; another request under the same key is a conflict.

Requests under one key are carried out one at a time (`services.pool.service.idempotency`): who comes meanwhile waits, unread, and gets
the first one's answer, the conflict, or its turn when the first one failed. Only answers of success are kept, for a day, after the write
and before they are sent. A crash in between carries the request out again, which changes nothing: every write of the pool is keyed by
its content. Limits: an answer of more than `MAX_ANSWER_BYTES` is not kept, so that its request is carried out again, too. Bodies are
hashed as they stream and never held.
"""

import hashlib
import logging
from collections.abc import MutableMapping
from typing import Any

from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.pool.models import IdempotencyKeyRow
from services.pool.service import idempotency
from shared.bodies import BodyError
from shared.contracts.problems import Problem
from shared.db import Database
from shared.errors import ConflictError
from shared.problems import problem_response

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
MAX_KEY_CHARACTERS = 255
MAX_ANSWER_BYTES = 8 << 20
RETRY_AFTER_S = 5
_WRITES = ("POST", "PUT", "PATCH", "DELETE")
log = logging.getLogger(__name__)


class _Request:
    """A request that is hashed while it is read."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = Headers(scope=scope)
        named = [headers.get(name, "") for name in ("content-type", "content-encoding")]
        head = "\0".join([scope["method"], scope["path"], scope["query_string"].decode("latin-1"), *named])
        self._hash = hashlib.sha256(head.encode() + b"\0")
        self._receive = receive
        self.is_whole = self.is_gone = False

    async def receive(self) -> Message:
        """The next part, for whoever reads the request."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._hash.update(message.get("body", b""))
            self.is_whole = not message.get("more_body", False)
        else:
            self.is_gone = True
        return message

    async def hash(self) -> bytes | None:
        """The hash of all of it, None when its sender is gone before its end."""
        while not self.is_whole and not self.is_gone:
            await self.receive()
        return self._hash.digest() if self.is_whole else None


class _Answer:
    """An answer that is held back until it is whole, or too large to keep."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._messages: list[Message] = []
        self._size_bytes = 0
        self._is_passed = False

    async def send(self, message: Message) -> None:
        """The next part, from whoever answers."""
        if not self._is_passed:
            self._messages.append(message)
            self._size_bytes += len(message.get("body", b""))
            if self._size_bytes <= MAX_ANSWER_BYTES:
                return
            await self.release()
            return
        await self._send(message)

    async def release(self) -> None:
        """Send what was held back, and what comes from now on."""
        self._is_passed = True
        held, self._messages = self._messages, []
        for message in held:
            await self._send(message)

    def kept(self) -> tuple[int, str, bytes] | None:
        """Status, content type and body of a whole answer of success that was held back."""
        if self._is_passed or not self._messages or self._messages[-1].get("more_body", False):
            return None
        start: MutableMapping[str, Any] = self._messages[0]
        content_type = Headers(raw=start.get("headers", [])).get("content-type", "")
        body = b"".join(message.get("body", b"") for message in self._messages[1:])
        return (start["status"], content_type, body) if 200 <= start["status"] < 300 else None


class IdempotencyKeys:
    """ASGI middleware; whoever may not write is turned away before it."""

    def __init__(self, app: ASGIApp, database: Database) -> None:
        self._app = app
        self._database = database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        key = Headers(scope=scope).get(HEADER) if scope["type"] == "http" and scope["method"] in _WRITES else None
        if key is None:
            await self._app(scope, receive, send)
            return
        request = _Request(scope, receive)
        try:
            response = await self._answer(scope, request, key, _Answer(send))
        except BodyError as error:
            response = problem_response(error.problem(), error.status_code)
        except idempotency.AWAY as error:
            log.warning("the answer under an Idempotency-Key cannot be looked up or kept: %s", error)
            message = "The database does not answer or is busy; repeat the request."
            response = problem_response(Problem(code="database_unavailable", message=message), 503)
        if response is not None:
            await response(scope, receive, send)

    async def _answer(self, scope: Scope, request: _Request, key: str, answer: _Answer) -> Response | None:
        """The response that is to be sent; None when the answer has been."""
        if not 0 < len(key) <= MAX_KEY_CHARACTERS or not (key.isascii() and key.isprintable()):
            message = f"{HEADER} has to be 1 to {MAX_KEY_CHARACTERS} printable ASCII characters, such as a UUID; send another."
            return problem_response(Problem(code="idempotency_key_invalid", message=message), 422)
        try:
            turn = await idempotency.turn(self._database, key)
        except ConflictError as error:
            return problem_response(error.problem(), error.status, {"Retry-After": str(RETRY_AFTER_S)})
        if isinstance(turn, IdempotencyKeyRow):
            request_hash = await request.hash()
            return None if request_hash is None else _again(turn, request_hash)
        async with turn.held():
            await self._app(scope, request.receive, answer.send)
            kept = answer.kept()
            request_hash = await _rest_of(request) if kept is not None else None
            if kept is not None and request_hash is not None:
                known = await turn.keep(request_hash, *kept)
                if known is not None:
                    return _again(known, request_hash)
        await answer.release()
        return None


async def _rest_of(request: _Request) -> bytes | None:
    """The hash of a request that is carried out; None when what it did not need of its body is too much, or does not come."""
    try:
        return await request.hash()
    except BodyError:
        return None


def _again(known: IdempotencyKeyRow, request_hash: bytes) -> Response:
    """The kept answer, or the conflict when it is to another request."""
    if known.request_hash == request_hash:
        headers = {REPLAYED: "true"}
        return Response(known.body, known.status, headers, known.content_type or None)
    message = f"This {HEADER} came with another request in the last day; send this one under a key of its own."
    return problem_response(Problem(code="idempotency_key_reused", message=message), 409)
