"""What every API has: error bodies, service-token check, a limit of bodies, liveness and readiness, metrics.

`/health/live` answers while the process runs; `/health/ready` runs the service's own check (503 with the reason).
"""

import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType
from typing import TypeVar

import httpx
from fastapi import Depends, FastAPI
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import TypeAdapter
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from shared import openapi
from shared.bodies import EndSilence, LimitBody
from shared.contracts.problems import Problem, ProblemBody
from shared.errors import HeadwaterError, UnavailableError
from shared.problems import answer_errors, problem_response, refuse_repeated
from shared.settings import Settings

T = TypeVar("T")
SERVICE_TOKEN_HEADER = "X-Headwater-Service-Token"  # noqa: S105 (a header's name)
_TOKEN_HEADER = SERVICE_TOKEN_HEADER.lower().encode()
_OPEN_PATHS = ("/health/", "/metrics", "/openapi.json", "/docs")
log = logging.getLogger(__name__)


def create_app(
    title: str,
    settings: Settings,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    ready: Callable[[], Awaitable[None]],
    *,
    check_service_token: bool = True,
    body_limits: Mapping[str, int | None] | None = MappingProxyType({}),
    inner: Sequence[Middleware] = (),
    request_bodies: openapi.RequestBodies = MappingProxyType({}),
) -> FastAPI:
    """A FastAPI app with the common parts. `ready` raises HeadwaterError when the service cannot serve.

    `body_limits`: bytes by path where it is not MAX_BODY_BYTES, None for a path that bounds what it reads itself; None in
    place of all limits for an app that holds no body. `request_bodies`: what is read as a stream, for the document. `inner`:
    middleware behind these limits and the service token.
    """
    app = FastAPI(
        title=f"Headwater {title}",
        version="0.1.0",
        lifespan=lifespan,
        middleware=list(inner),
        dependencies=[Depends(refuse_repeated)],
        generate_unique_id_function=openapi.operation_id,
    )
    openapi.describe(app, request_bodies)
    if body_limits is not None:
        app.add_middleware(LimitBody, limits=body_limits)
    # Who only passes a body on loses patience before those behind it do, so that it is the one that says so.
    app.add_middleware(EndSilence, share=1.0 if body_limits is not None else 0.8)
    token = settings.service_token.get_secret_value()
    if check_service_token and token:
        app.add_middleware(RequireServiceToken, token=token.encode())
    elif check_service_token:
        log.warning("HEADWATER_SERVICE_TOKEN is not set: %s answers everybody who reaches it", title)
    answer_errors(app, title)

    @app.get("/health/live", include_in_schema=False)
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health/ready", include_in_schema=False)
    async def is_ready() -> dict[str, str]:
        await ready()
        return {"status": "ready"}

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


class RequireServiceToken:
    """Turns away who does not have the token of services. ASGI middleware."""

    def __init__(self, app: ASGIApp, token: bytes) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] != "http" or scope["path"].startswith(_OPEN_PATHS) or self._is_held_by(scope):
            await self._app(scope, receive, send)
            return
        message = f"This address is for services; {SERVICE_TOKEN_HEADER} is missing or wrong."
        await problem_response(Problem(code="unauthorized", message=message), 401)(scope, receive, send)

    def _is_held_by(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == _TOKEN_HEADER), b"")
        return hmac.compare_digest(given, self._token)


@asynccontextmanager
async def service_client(
    base_url: str, settings: Settings, timeout_s: float = 30.0
) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client for another service: token, deadline, and the peer's problem raised as HeadwaterError by `call`."""
    headers = {SERVICE_TOKEN_HEADER: settings.service_token.get_secret_value()}
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=timeout_s, trust_env=False) as client:
        yield client


def raise_problem(response: httpx.Response) -> None:
    """Raise the peer's error as it was named; nothing on 2xx."""
    if response.is_success:
        return
    try:
        problem = ProblemBody.model_validate_json(response.content).error
    except ValueError:
        problem = Problem(
            code=f"http_{response.status_code}", message=f"{response.request.url} answered {response.status_code}."
        )
    raise HeadwaterError(problem.code, problem.message, response.status_code, problem.details)


async def call(client: httpx.AsyncClient, method: str, path: str, answer: type[T], **request: object) -> T:
    """One JSON call to another service. Raises: as `call_bytes`."""
    return TypeAdapter(answer).validate_json(await call_bytes(client, method, path, **request))


async def call_bytes(client: httpx.AsyncClient, method: str, path: str, **request: object) -> bytes:
    """One call to another service, answered with bytes.

    Raises: HeadwaterError as the peer named it; UnavailableError when the peer does not answer in time.
    """
    try:
        response = await client.request(method, path, **request)  # type: ignore[arg-type]
    except httpx.TransportError as error:
        raise UnavailableError(
            "service_unavailable", f"{client.base_url} does not answer ({type(error).__name__})."
        ) from error
    raise_problem(response)
    return response.content
