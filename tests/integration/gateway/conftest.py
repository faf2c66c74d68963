"""The gateway and the services behind it, as real servers on 127.0.0.1."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest_asyncio
import uvicorn
from starlette.types import ASGIApp

from services.gateway.keys import make_key
from services.gateway.main import create_app
from services.gateway.repository import KeyRepository
from shared.db import Database
from shared.settings import Settings

SERVICES = ("pool", "generation", "training", "cascade")
Open = Callable[[ASGIApp | None], Awaitable[httpx.AsyncClient]]


def closed_address() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """The address of the app while it is served."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        assert not task.done()
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The migrated database."""
    database = Database(database_url)
    yield database
    await database.close()


@pytest_asyncio.fixture
async def key(database: Database) -> str:
    """A valid API key."""
    async with database.transaction() as session:
        return await make_key(KeyRepository(session), "test")


@pytest_asyncio.fixture
async def behind(database_url: str, key: str) -> AsyncIterator[Open]:
    """Opens a gateway in front of one app that plays every service; a client with a valid key."""
    async with AsyncExitStack() as stack:

        async def behind(app: ASGIApp | None) -> httpx.AsyncClient:
            url = await stack.enter_async_context(served(app)) if app else closed_address()
            urls = {f"{service}_url": url for service in SERVICES}
            settings = Settings(database_url=database_url, service_token="inside", **urls)  # type: ignore[arg-type]
            gateway = await stack.enter_async_context(served(create_app(settings)))
            headers = {"Authorization": f"Bearer {key}"}
            return await stack.enter_async_context(
                httpx.AsyncClient(base_url=gateway, headers=headers, trust_env=False, timeout=20)
            )

        yield behind
