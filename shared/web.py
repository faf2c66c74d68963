"""What every API has: error bodies, service-token check, liveness and readiness, metrics.

`/health/live` answers while the process runs; `/health/ready` runs the service's own check (503 with the reason).
"""

import errno
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import httpx
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import TypeAdapter
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from shared.contracts.problems import Problem, ProblemBody, ProblemDetail
from shared.errors import HeadwaterError, UnavailableError
from shared.settings import Settings

T = TypeVar("T")
SERVICE_TOKEN_HEADER = "X-Headwater-Service-Token"  # noqa: S105 (a header's name)
_OPEN_PATHS = ("/health/", "/metrics", "/openapi.json", "/docs")
# Connection lost, rolled back (deadlock), out of resources (connections), shutting down or starting up.
_PASSING_SQLSTATES = ("08", "40", "53", "57P")
_DISK_FULL_SQLSTATE = "53100"
_MAX_DETAILS = 100
_MAX_FIELD_CHARACTERS = 200
_MAX_MESSAGE_CHARACTERS = 500
log = logging.getLogger(__name__)


def problem_response(problem: Problem, status: int) -> JSONResponse:
    """The one error body."""
    return JSONResponse(ProblemBody(error=problem).model_dump(mode="json"), status_code=status)


def _detail(error: dict[str, object]) -> ProblemDetail:
    location = [str(part) for part in error["loc"] if part not in ("body", "query", "path")]  # type: ignore[attr-defined]
    field = printable(".".join(location), _MAX_FIELD_CHARACTERS)
    message = printable(str(error["msg"]), _MAX_MESSAGE_CHARACTERS)
    return ProblemDetail(field=field or None, reason=str(error["type"]), message=message)


def printable(text: str, limit: int) -> str:
    """The beginning of a sender's text as an answer can always carry it: lone surrogates and NUL are written as escapes."""
    return text[:limit].replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()[:limit]


def validation_problem(errors: list[dict[str, object]]) -> Problem:
    """Pydantic's errors as one sentence plus one detail a field."""
    details = tuple(_detail(error) for error in errors[:_MAX_DETAILS])
    first = details[0]
    where = f"{first.field}: " if first.field else ""
    return Problem(code="invalid_request", message=f"The request is not valid. {where}{first.message}", details=details)


def create_app(
    title: str,
    settings: Settings,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    ready: Callable[[], Awaitable[None]],
    *,
    check_service_token: bool = True,
) -> FastAPI:
    """A FastAPI app with the common parts. `ready` raises HeadwaterError when the service cannot serve."""
    app = FastAPI(title=f"Headwater {title}", version="0.1.0", lifespan=lifespan)
    token = settings.service_token.get_secret_value()
    if check_service_token and token:
        _require_service_token(app, token.encode())
    elif check_service_token:
        log.warning("HEADWATER_SERVICE_TOKEN is not set: %s answers everybody who reaches it", title)
    _answer_errors(app, title)

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


def _require_service_token(app: FastAPI, token: bytes) -> None:
    @app.middleware("http")
    async def service_token(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get(SERVICE_TOKEN_HEADER, "").encode()
        if request.url.path.startswith(_OPEN_PATHS) or hmac.compare_digest(given, token):
            return await call_next(request)
        message = f"This address is for services; {SERVICE_TOKEN_HEADER} is missing or wrong."
        return problem_response(Problem(code="unauthorized", message=message), 401)


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def _will_pass(error: DBAPIError) -> bool:
    is_away = error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError))
    return is_away or _sqlstate(error).startswith(_PASSING_SQLSTATES)


def _disk_full(whose: str) -> JSONResponse:
    message = f"The disk of {whose} is full: free some space; what was accepted is kept; repeat the request."
    return problem_response(Problem(code="disk_full", message=message), 503)


def _answer_errors(app: FastAPI, title: str) -> None:
    @app.exception_handler(HeadwaterError)
    async def on_headwater_error(_: Request, error: HeadwaterError) -> Response:
        return problem_response(error.problem(), error.status)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> Response:
        return problem_response(validation_problem(list(error.errors())), 422)

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, error: HTTPException) -> Response:
        return problem_response(Problem(code=f"http_{error.status_code}", message=str(error.detail)), error.status_code)

    @app.exception_handler(PoolTimeoutError)
    @app.exception_handler(DBAPIError)
    async def on_database(_: Request, error: DBAPIError | PoolTimeoutError) -> Response:
        if isinstance(error, DBAPIError) and _sqlstate(error) == _DISK_FULL_SQLSTATE:
            log.error("the disk of the database is full: %s", error.orig)
            return _disk_full("the database")
        if isinstance(error, PoolTimeoutError) or _will_pass(error):
            message = "The database does not answer or is busy; repeat the request."
            return problem_response(Problem(code="database_unavailable", message=message), 503)
        log.error("database error", exc_info=error)
        message = f"{title} failed on this request; its log has the details."
        return problem_response(Problem(code="internal", message=message), 500)

    @app.exception_handler(OSError)
    async def on_connection(_: Request, error: OSError) -> Response:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            log.error("the disk is full: %s", error)
            return _disk_full(title)
        log.warning("a dependency does not answer: %s", error)
        message = f"{title} cannot reach what it needs ({error}); repeat the request."
        return problem_response(Problem(code="dependency_unavailable", message=message), 503)


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
    """One JSON call to another service.

    Raises: HeadwaterError as the peer named it; UnavailableError when the peer does not answer in time.
    """
    try:
        response = await client.request(method, path, **request)  # type: ignore[arg-type]
    except httpx.TransportError as error:
        raise UnavailableError(
            "service_unavailable", f"{client.base_url} does not answer ({type(error).__name__})."
        ) from error
    raise_problem(response)
    return TypeAdapter(answer).validate_json(response.content)
