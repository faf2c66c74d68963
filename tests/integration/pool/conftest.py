"""A running pool on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from shared.settings import Settings
from tests.integration.pool.client import PoolClient, RecordedHints, serving


@pytest_asyncio.fixture
async def pool(database_url: str, tmp_path: Path) -> AsyncIterator[PoolClient]:
    """A running pool with a registered campaign."""
    hints = RecordedHints()
    async with serving(Settings(database_url=database_url, artifacts_url=str(tmp_path)), hints) as http:
        client = PoolClient(http, hints, database_url)
        await client.register()
        yield client
