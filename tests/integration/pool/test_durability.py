"""Acknowledged means durable: what was answered 2xx for is there after `kill -9` of Postgres."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.settings import Settings
from tests.faults.servers import KillablePostgres, migrate
from tests.integration.pool.client import PoolClient, RecordedHints, group, serving

pytestmark = pytest.mark.integration


@pytest.fixture
def killed_postgres(tmp_path: Path) -> Iterator[KillablePostgres]:
    server = KillablePostgres(tmp_path / "postgres")
    yield server
    server.stop()


async def test_every_acknowledged_group_survives_kill_9_of_postgres(killed_postgres: KillablePostgres, tmp_path: Path):
    await killed_postgres.until_ready()
    await asyncio.to_thread(migrate, killed_postgres.url)
    settings = Settings(database_url=killed_postgres.url, artifacts_url=str(tmp_path / "artifacts"))
    acknowledged: dict[str, str] = {}
    refused = 0
    async with serving(settings, RecordedHints()) as http:
        pool = PoolClient(http, RecordedHints(), killed_postgres.url)
        await pool.register()
        await pool.submit(300)
        order = await pool.order(k=2)
        assignments = await pool.claim()

        async def hand_in(part: int) -> None:
            nonlocal refused
            for assignment in assignments[part::4]:
                answer = await http.post("/v1/groups", json={"groups": [group(assignment)]})
                if answer.status_code == 200:
                    [receipt] = answer.json()["receipts"]
                    acknowledged[assignment["id"]] = receipt["group_id"]
                else:
                    assert answer.status_code == 503, answer.text
                    refused += 1

        async def crash() -> None:
            while len(acknowledged) < 60:
                await asyncio.sleep(0)
            await asyncio.to_thread(killed_postgres.kill)

        await asyncio.gather(crash(), *(hand_in(part) for part in range(4)))
        assert 60 <= len(acknowledged) < 300
        assert refused
        await killed_postgres.until_ready()
        stored = {str(row.assignment_id): str(row.id) for row in await pool.execute("SELECT * FROM pool.groups")}
        assert acknowledged.items() <= stored.items()
        receipts = await pool.hand_in(*(group(assignment) for assignment in assignments))
        assert {receipt["status"] for receipt in receipts} == {"stored", "duplicate"}
        now = await pool.ask("GET", f"/v1/orders/{order['id']}")
        assert (now["state"], now["done"]) == ("complete", 300)
        assert (await pool.pools())["groups"] == 300
        [(responses,)] = await pool.execute("SELECT count(*) FROM pool.responses")
        assert responses == 600
