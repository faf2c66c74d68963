"""Passes a request to the service behind its door and the answer back, both as streams: no body is ever held whole.

Limits: connecting may take 5 s, a service may be silent for 10 minutes. A service that fails half-way through its answer
ends the connection, so that a cut answer is never taken for a whole one.
"""

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio
import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from services.gateway.doors import addresses, door_for
from shared.errors import HeadwaterError, UnavailableError
from shared.settings import Settings
from shared.web import SERVICE_TOKEN_HEADER

TIMEOUTS = httpx.Timeout(connect=5.0, read=600.0, write=60.0, pool=5.0)
# Idle connections are let go before a service does it (uvicorn: 5 s), so that no request meets a closed one.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=2.0)
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade".split()
)
KEPT_HERE = frozenset({b"host", b"authorization", b"expect", SERVICE_TOKEN_HEADER.lower().encode()})
Headers = list[tuple[bytes, bytes]]
log = logging.getLogger(__name__)


class Proxy:
    """The way to the services."""

    def __init__(self, http: httpx.AsyncClient, settings: Settings) -> None:
        self._http = http
        self._addresses = addresses(settings)
        self._token = settings.service_token.get_secret_value().encode()

    async def forward(self, request: Request) -> Response:
        """The service's answer. Raises: NotFoundError, HeadwaterError 405, UnavailableError naming the service."""
        raw_path = request.scope["raw_path"].partition(b"?")[0].decode("latin-1")
        door = door_for(request.method, raw_path)
        query = request.scope["query_string"].decode("latin-1")
        # Made without the client's defaults: headers of ours would change what the service answers.
        outgoing = httpx.Request(
            request.method,
            f"{self._addresses[door.service]}{raw_path}{f'?{query}' if query else ''}",
            headers=[*_end_to_end(request.headers.raw, KEPT_HERE), (SERVICE_TOKEN_HEADER.encode(), self._token)],
            content=request.stream() if _has_body(request) else None,
            extensions={"timeout": TIMEOUTS.as_dict()},
        )
        try:
            answer = await self._http.send(outgoing, stream=True)
        except httpx.TransportError as error:
            log.warning("%s %s: %s does not answer (%r)", request.method, raw_path, door.service, error)
            raise UnavailableError(
                "service_unavailable", f"The service {door.service} does not answer; repeat the request in a moment."
            ) from error
        except ClientDisconnect as error:
            raise HeadwaterError("client_disconnected", "The request ended before its body did.", 400) from error
        return ProxiedResponse(answer)


class ProxiedResponse(StreamingResponse):
    """An answer on its way through; the service's connection is let go however it ends."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(answer.aiter_raw(), status_code=answer.status_code)
        self.raw_headers = _end_to_end(answer.headers.raw)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._answer.aclose()


@asynccontextmanager
async def connect() -> AsyncIterator[httpx.AsyncClient]:
    """The client for all services."""
    async with httpx.AsyncClient(timeout=TIMEOUTS, limits=LIMITS, trust_env=False) as http:
        yield http


def _end_to_end(headers: Iterable[tuple[bytes, bytes]], without: frozenset[bytes] = frozenset()) -> Headers:
    pairs = [(name.lower(), value) for name, value in headers]
    named = {part.strip().lower() for name, value in pairs if name == b"connection" for part in value.split(b",")}
    return [(name, value) for name, value in pairs if name not in HOP_BY_HOP | named | without]


def _has_body(request: Request) -> bool:
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"
