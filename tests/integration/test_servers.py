"""The servers that every other test relies on."""

import asyncpg
import pytest
import redis.asyncio

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_gets_an_empty_migrated_database(database_url: str, turn: int):
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE tablename = 'mine'") == 0
    assert await connection.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'pool'") == 1
    await connection.execute("CREATE TABLE pool.mine (id int)")
    await connection.close()


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_gets_an_empty_valkey(redis_url: str, turn: int):
    client = redis.asyncio.Redis.from_url(redis_url)
    assert await client.dbsize() == 0
    await client.set("mine", 1)
    await client.aclose()
