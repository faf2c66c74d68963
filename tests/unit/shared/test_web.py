"""Errors on the wire: what passes by itself is a 503, and whatever was sent, the answer can be written."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from asyncpg.exceptions import (
    CannotConnectNowError,
    DeadlockDetectedError,
    DiskFullError,
    TooManyConnectionsError,
    UniqueViolationError,
)
from fastapi import FastAPI
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

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
    ],
)
async def test_a_database_that_cannot_now_is_unavailable(error: Exception, status: int, code: str) -> None:
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
