"""The database's connections: one that the server has closed is replaced, and nobody notices."""

import asyncio

import pytest
from sqlalchemy import text

from shared.db import Database

pytestmark = pytest.mark.integration

_NAME = text("SET application_name = 'closed on us'")
_OTHERS = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'closed on us'")
_END = text("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'closed on us'")
CLOSED_DEADLINE_S = 30.0


async def test_a_connection_that_the_server_closed_is_replaced(database_url: str):
    database, other = Database(database_url), Database(database_url)
    for opened in (database.transaction, database.autocommit):
        async with opened() as session:
            await session.execute(_NAME)
    async with asyncio.timeout(CLOSED_DEADLINE_S), other.autocommit() as session:
        assert (await session.execute(_END)).scalar_one() == 2
        while (await session.execute(_OTHERS)).scalar_one():
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)  # until the end of the connection was read
    for opened in (database.transaction, database.autocommit):
        async with opened() as session:
            assert (await session.execute(text("SELECT 1"))).scalar_one() == 1
    await database.close()
    await other.close()
