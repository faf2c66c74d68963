"""An empty database for Alembic."""

import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from tests.conftest import Server


@pytest_asyncio.fixture
async def empty(postgres_server: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncEngine]:
    """A database without any table, the one that Alembic is told of."""
    name = f"empty_{uuid.uuid4().hex[:12]}"
    await postgres_server.execute(f"CREATE DATABASE {name}")
    monkeypatch.setenv("HEADWATER_DATABASE_URL", postgres_server.database_url(name))
    engine = create_async_engine(postgres_server.database_url(name), poolclass=NullPool)
    yield engine
    await engine.dispose()
    await postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")
