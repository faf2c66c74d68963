"""Acknowledged means durable: what was answered 2xx for is there after `kill -9` of Postgres."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from services.local import postgres
from shared.settings import Settings
from tests.integration.pool.client import PoolClient, RecordedHints, group, serving

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]


class KilledPostgres:
    """A Postgres with its durable defaults, that can be killed as a machine dies."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._directory = directory
        postgres.initialise(directory, "test")
        self.url = postgres.url(self._port, "test")
        self._process = self._begin()

    def _begin(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            postgres.command(self._directory, self._port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    async def until_ready(self) -> None:
        """Wait for it; a start that the killed server's memory segment prevents is repeated."""
        async with asyncio.timeout(60):
            while True:
                if self._process.poll() is not None:
                    self._process = self._begin()
                with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    connection = await asyncpg.connect(self.url.replace("+asyncpg", ""))
                    await connection.close()
                    return
                await asyncio.sleep(0.1)

    def kill(self) -> None:
        """kill -9 of the postmaster and of every process of its."""
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._process.pid)], capture_output=True, text=True
        )
        self._process.kill()
        for pid in children.stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=30)


@pytest.fixture
def killed_postgres(tmp_path: Path) -> Iterator[KilledPostgres]:
    server = KilledPostgres(tmp_path / "postgres")
    yield server
    server.stop()


async def test_every_acknowledged_group_survives_kill_9_of_postgres(killed_postgres: KilledPostgres, tmp_path: Path):
    await killed_postgres.until_ready()
    environment = os.environ | {"HEADWATER_DATABASE_URL": killed_postgres.url}
    upgrade = [sys.executable, "-m", "alembic", "upgrade", "head"]
    await asyncio.to_thread(subprocess.run, upgrade, cwd=ROOT, env=environment, check=True, capture_output=True)
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
