"""Errors on the wire: what passes by itself is a 503, and whatever was sent, the answer can be written."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from asyncpg.exceptions import (
    CannotConnectNowError,
    DataError,
    DeadlockDetectedError,
    DiskFullError,
    TooManyConnectionsError,
    UniqueViolationError,
    UntranslatableCharacterError,
)
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared.bodies import MAX_BODY_BYTES
from shared.contracts.base import Contract
from shared.settings import Settings
from shared.web import create_app


def database_error(cause: type[Exception]) -> DBAPIError:
    return DBAPIError("SELECT 1", {}, AsyncAdapt_asyncpg_dbapi.Error("text", cause("text")))


class Body(Contract):
    """A body."""

    name: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield


async def ready() -> None:
    """Always."""


async def ask(method: str, error: Exception | None = None, **request: object) -> httpx.Response:
    app = create_app("test", Settings(service_token=""), lifespan, ready)

    @app.get("/")
    async def fail() -> None:
        assert error is not None
        raise error

    @app.post("/")
    async def take(body: Body) -> Body:
        return body

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, "/", **request)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (database_error(CannotConnectNowError), 503, "database_unavailable"),
        (database_error(TooManyConnectionsError), 503, "database_unavailable"),
        (database_error(DeadlockDetectedError), 503, "database_unavailable"),
        (PoolTimeoutError("pool"), 503, "database_unavailable"),
        (database_error(UniqueViolationError), 500, "internal"),
        (KeyError("a fault of ours"), 500, "internal"),
    ],
)
async def test_what_fails_has_the_one_body_and_a_database_that_cannot_now_is_unavailable(
    error: Exception, status: int, code: str
) -> None:
    answer = await ask("GET", error)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("error", "whose"),
    [(database_error(DiskFullError), "the database"), (OSError(errno.ENOSPC, "No space left on device"), "test")],
)
async def test_a_full_disk_is_named_with_the_way_out(error: Exception, whose: str) -> None:
    answer = await ask("GET", error)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "disk_full")
    sentence = f"The disk of {whose} is full: free some space; what was accepted is kept; repeat the request."
    assert answer.json()["error"]["message"] == sentence


@pytest.mark.parametrize("key", ['"\\ud800"', '"\\u0000"', '"' + "x" * 100_000 + '"'])
async def test_an_echoed_field_can_always_be_written_and_stays_small(key: str) -> None:
    answer = await ask("POST", content=f'{{"name": "a", {key}: 1}}', headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
    assert len(answer.content) < 2000


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("content", "headers", "status", "code", "said"),
    [
        (b"{}", {}, 415, "unsupported_type", "send application/json"),
        (b"<a/>", {"Content-Type": "application/xml"}, 415, "unsupported_type", "'application/xml'"),
        (b"", JSON, 422, "invalid_request", "Field required"),
        (b"{nope", JSON, 422, "invalid_request", "not JSON: Expecting property name"),
        (b'{"name": "\xff"}', JSON, 400, "http_400", "UTF-8"),
        (b"[" * 100_000, JSON, 400, "http_400", "well-formed"),
        (b'{"name": ' + b"1" * 5000 + b"}", JSON, 400, "http_400", "well-formed"),
        (b"[1]", JSON, 422, "invalid_request", "valid dictionary"),
        (b'{"query": 1, "name": "a"}', JSON, 422, "invalid_request", "query: Extra inputs"),
        (b'{"name": "' + b"x" * MAX_BODY_BYTES + b'"}', JSON, 413, "body_too_large", "4,194,304 bytes"),
        (b"{" + b'"x": 1, ' * 1001 + b'"name": "a"}', JSON, 413, "body_too_complex", "more than 1,000 fields"),
        (b"[" + b"1," * 500_001 + b"1]", JSON, 413, "body_too_complex", "more than 500,000 values"),
    ],
)
async def test_a_bad_body_is_refused_with_the_way_out(
    content: bytes, headers: dict[str, str], status: int, code: str, said: str
) -> None:
    answer = await ask("POST", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert said in answer.json()["error"]["message"]


async def test_a_body_without_a_length_is_read_up_to_the_limit_and_no_further() -> None:
    sent_bytes = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent_bytes
        while True:
            sent_bytes += 1 << 16
            yield b" " * (1 << 16)

    answer = await ask("POST", content=endless(), headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert sent_bytes <= MAX_BODY_BYTES + (2 << 16)


async def test_a_sender_that_is_silent_in_the_middle_of_a_body_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.bodies.SILENCE_S", 0.05)

    async def silent() -> AsyncIterator[bytes]:
        yield b'{"name": '
        await asyncio.Event().wait()

    answer = await ask("POST", content=silent(), headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "body_timeout")
    assert answer.headers["Connection"] == "close"


async def test_a_body_that_comes_slowly_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.bodies.SILENCE_S", 0.5)

    async def slow() -> AsyncIterator[bytes]:
        for part in (b'{"name"', b": ", b'"a"', b"}"):
            await asyncio.sleep(0.2)
            yield part

    answer = await ask("POST", content=slow(), headers=JSON)
    assert (answer.status_code, answer.json()) == (200, {"name": "a"})


async def test_a_length_that_lies_is_not_believed() -> None:
    body = b'{"name": "' + b"x" * MAX_BODY_BYTES + b'"}'
    answer = await ask("POST", content=body, headers=JSON | {"Content-Length": "20"})
    assert answer.status_code == 413
    for huge in ("9" * 30, str(MAX_BODY_BYTES + 1)):
        answer = await ask("POST", content=b'{"name": "a"}', headers=JSON | {"Content-Length": huge})
        assert answer.status_code == 413


async def test_a_repeated_parameter_an_address_that_is_not_there_and_a_method_are_named() -> None:
    repeated = await ask("POST", params=[("a", "1"), ("a", "2")], json={"name": "a"})
    assert (repeated.status_code, repeated.json()["error"]["code"]) == (422, "repeated_parameter")
    assert "Parameter 'a' comes 2 times" in repeated.json()["error"]["message"]
    other = await ask("DELETE")
    assert (other.status_code, other.json()["error"]["code"]) == (405, "http_405")
    assert other.headers["allow"]
    assert "does not take DELETE" in other.json()["error"]["message"]


@pytest.mark.parametrize(
    ("place", "field"), [((), None), (("groups", 0, "k"), "groups.0.k"), (("body", "query"), "query")]
)
async def test_an_error_of_a_body_read_as_a_stream_names_its_field(
    place: tuple[str | int, ...], field: str | None
) -> None:
    error = RequestValidationError([{"type": "wrong", "loc": place, "msg": "is wrong"}])
    answer = await ask("GET", error)
    assert (answer.status_code, answer.json()["error"]["details"][0]["field"]) == (422, field)


@pytest.mark.parametrize("cause", [UntranslatableCharacterError, DataError])
async def test_a_value_that_the_database_cannot_hold_is_the_senders(cause: type[Exception]) -> None:
    answer = await ask("GET", database_error(cause))
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "unusable_value")
