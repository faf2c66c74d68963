"""How the failures of a request become the one error body (`ProblemBody`): a code, a sentence, details by field.

Whatever was sent, the answer can be written and stays small. What passes by itself is a 503.
"""

import errno
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from shared.bodies import BodyError
from shared.contracts.problems import Problem, ProblemBody, ProblemDetail
from shared.errors import HeadwaterError

# Connection lost, rolled back (deadlock), out of resources (connections), shutting down or starting up.
_PASSING_SQLSTATES = ("08", "40", "53", "57P")
_DISK_FULL_SQLSTATE = "53100"
# A value that Postgres cannot hold: what asyncpg cannot encode (a lone surrogate, an integer out of range), a NUL character.
_UNUSABLE_SQLSTATES = ("22000", "22021", "22P05")
_REQUEST_TIMEOUT = 408
_MAX_DETAILS = 100
_PLACES = ("body", "query", "path", "header", "cookie")
_MAX_FIELD_CHARACTERS = 200
_MAX_MESSAGE_CHARACTERS = 500
log = logging.getLogger(__name__)


def problem_response(problem: Problem, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The one error body. A connection on which the rest of a body did not come is of no use any more."""
    response = JSONResponse(ProblemBody(error=problem).model_dump(mode="json"), status_code=status, headers=headers)
    if status == _REQUEST_TIMEOUT:
        response.headers["Connection"] = "close"
    return response


def _detail(error: dict[str, Any]) -> ProblemDetail:
    if error["type"] == "json_invalid":
        return _json_detail(error)
    location = [str(part) for part in error["loc"]]
    if location and location[0] in _PLACES:
        del location[0]
    field = printable(".".join(location), _MAX_FIELD_CHARACTERS)
    message = printable(str(error["msg"]), _MAX_MESSAGE_CHARACTERS)
    return ProblemDetail(field=field or None, reason=str(error["type"]), message=message)


def _json_detail(error: dict[str, Any]) -> ProblemDetail:
    """FastAPI's own error of a body that is no JSON: its location is a position in the text."""
    why = printable(str(error["ctx"]["error"]), _MAX_MESSAGE_CHARACTERS)
    message = f"The body is not JSON: {why} at character {error['loc'][-1]}."
    return ProblemDetail(reason="json_invalid", message=message)


def printable(text: str, limit: int) -> str:
    """The beginning of a sender's text as an answer can always carry it: lone surrogates and NUL are written as escapes."""
    return text[:limit].replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()[:limit]


def validation_problem(errors: list[dict[str, Any]]) -> Problem:
    """Pydantic's errors as one sentence plus one detail a field."""
    details = tuple(_detail(error) for error in errors[:_MAX_DETAILS])
    first = details[0]
    where = f"{first.field}: " if first.field else ""
    return Problem(code="invalid_request", message=f"The request is not valid. {where}{first.message}", details=details)


async def refuse_repeated(request: Request) -> None:
    """A parameter that comes twice has no meaning: neither of its values is taken."""
    counts = Counter(name for name, _ in request.query_params.multi_items())
    repeated = next((name for name, count in counts.items() if count > 1), None)
    if repeated is not None:
        name = printable(repeated, _MAX_FIELD_CHARACTERS)
        message = f"Parameter '{name}' comes {counts[repeated]} times; send it once."
        detail = ProblemDetail(field=name, reason="repeated_parameter", message=message)
        raise HeadwaterError("repeated_parameter", message, 422, (detail,))


def _other_type(request: Request) -> str | None:
    """What to say of a body that is not JSON where JSON is read; None where it says that it is."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.endswith(("/json", "+json")):
        return None
    shown = printable(kind, _MAX_FIELD_CHARACTERS) or "(none)"
    return f"This address reads JSON, not content type '{shown}'; send application/json."


def _http_sentence(request: Request, error: HTTPException) -> str:
    """Starlette's and FastAPI's own refusals, with what was asked and the way out."""
    path = printable(request.url.path, _MAX_FIELD_CHARACTERS)
    match error.status_code:
        case 404:
            return f"There is no address {path}; /openapi.json lists them all."
        case 405:
            return f"{path} does not take {request.method}; /openapi.json says what it takes."
        case 400:
            return f"The request cannot be read ({error.detail}); send a body that is well-formed JSON in UTF-8."
    return str(error.detail)


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def _will_pass(error: DBAPIError) -> bool:
    is_away = error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError))
    return is_away or _sqlstate(error).startswith(_PASSING_SQLSTATES)


def _disk_full(whose: str) -> JSONResponse:
    message = f"The disk of {whose} is full: free some space; what was accepted is kept; repeat the request."
    return problem_response(Problem(code="disk_full", message=message), 503)


def _internal(whose: str) -> JSONResponse:
    message = f"{whose} failed on this request; its log has the details."
    return problem_response(Problem(code="internal", message=message), 500)


def answer_errors(app: FastAPI, title: str) -> None:
    """Every failure of a request is answered in the one form."""
    _answer_refusals(app)

    @app.exception_handler(HeadwaterError)
    async def on_headwater_error(_: Request, error: HeadwaterError) -> Response:
        return problem_response(error.problem(), error.status)

    @app.exception_handler(PoolTimeoutError)
    @app.exception_handler(DBAPIError)
    async def on_database(_: Request, error: DBAPIError | PoolTimeoutError) -> Response:
        if isinstance(error, DBAPIError) and _sqlstate(error) == _DISK_FULL_SQLSTATE:
            log.error("the disk of the database is full: %s", error.orig)
            return _disk_full("the database")
        if isinstance(error, PoolTimeoutError) or _will_pass(error):
            message = "The database does not answer or is busy; repeat the request."
            return problem_response(Problem(code="database_unavailable", message=message), 503)
        if _sqlstate(error) in _UNUSABLE_SQLSTATES:
            log.warning("a value that cannot be stored: %s", error.orig)
            message = "A value of this request holds what cannot be stored: a NUL character, a lone surrogate or a number out of range."
            return problem_response(Problem(code="unusable_value", message=message), 422)
        log.error("database error", exc_info=error)
        return _internal(title)

    @app.exception_handler(Exception)
    async def on_fault(_: Request, __: Exception) -> Response:
        return _internal(title)  # what it was, the server logs behind this answer

    @app.exception_handler(OSError)
    async def on_connection(_: Request, error: OSError) -> Response:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            log.error("the disk is full: %s", error)
            return _disk_full(title)
        log.warning("a dependency does not answer: %s", error)
        message = f"{title} cannot reach what it needs ({error}); repeat the request."
        return problem_response(Problem(code="dependency_unavailable", message=message), 503)


def _answer_refusals(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        errors = list(error.errors())
        if any(tuple(item["loc"]) == ("body",) for item in errors) and (other := _other_type(request)):
            return problem_response(Problem(code="unsupported_type", message=other), 415)
        return problem_response(validation_problem(errors), 422)

    @app.exception_handler(BodyError)
    async def on_body(_: Request, error: BodyError) -> Response:
        return problem_response(error.problem(), error.status_code)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        problem = Problem(code=f"http_{error.status_code}", message=_http_sentence(request, error))
        response = problem_response(problem, error.status_code)
        response.headers.update(error.headers or {})
        return response
