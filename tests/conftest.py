"""Real servers for the tests: Postgres and Valkey from their wheels, once a session, on free ports.

`database_url` is a fresh, migrated database for each test (a copy of a template); `redis_url` is an emptied Valkey.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import hypothesis
import pytest
import pytest_asyncio
import redis

from services.local import orphans, postgres, valkey

ROOT = Path(__file__).parents[1]
TEMPLATE = "migrated"
START_DEADLINE_S = 20

# How long an example takes says how busy the machine is, nothing else.
hypothesis.settings.register_profile("headwater", deadline=None)
hypothesis.settings.load_profile("headwater")


@dataclass(frozen=True)
class Server:
    """A server of this test session."""

    port: int
    password: str = ""

    def database_url(self, database: str) -> str:
        """The SQLAlchemy address of one database of a Postgres server."""
        return postgres.url(self.port, self.password, database)

    async def execute(self, sql: str) -> None:
        """One statement outside a transaction, in the maintenance database."""
        address = self.database_url("postgres").replace("+asyncpg", "")
        connection = await asyncpg.connect(address)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _serve(
    command: tuple[str, ...], port: int, log: Path, stop: signal.Signals, ready: Callable[[], bool]
) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, preexec_fn=orphans.adopted_by(os.getpid(), stop)
        )
    try:
        until = time.monotonic() + START_DEADLINE_S
        while not (_accepts(port) and ready()):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, f"port {port} doesn't answer: {log.read_text()}"
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(stop)
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """Where the servers of this session keep their files."""
    directory = Path(tempfile.mkdtemp(prefix="headwater-test-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(server_directory: Path) -> Iterator[Server]:
    """A Postgres server without any of our tables."""
    server = Server(_free_port(), password="test")
    postgres.initialise(server_directory / "postgres", server.password)
    command = postgres.command(server_directory / "postgres", server.port)
    is_ready = (f"{postgres.programs()}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(server.port))
    for _ in _serve(
        (*command, "-c", "synchronous_commit=off", "-c", "full_page_writes=off"),
        server.port,
        server_directory / "postgres.log",
        signal.SIGINT,
        lambda: subprocess.run(is_ready, check=False).returncode == 0,
    ):
        yield server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def migrated_template(postgres_server: Server) -> str:
    """The name of a database that `alembic upgrade head` has made, to copy from."""
    asyncio.run(postgres_server.execute(f"CREATE DATABASE {TEMPLATE}"))
    environment = os.environ | {"HEADWATER_DATABASE_URL": postgres_server.database_url(TEMPLATE)}
    upgrade = [sys.executable, "-m", "alembic", "upgrade", "head"]
    result = subprocess.run(upgrade, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return TEMPLATE


@pytest_asyncio.fixture
async def database_url(postgres_server: Server, migrated_template: str) -> AsyncIterator[str]:
    """The address of a fresh database with all our tables, dropped after the test."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    await postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE {migrated_template} STRATEGY FILE_COPY")
    yield postgres_server.database_url(name)
    await postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def valkey_server(server_directory: Path) -> Iterator[Server]:
    """A Valkey server."""
    server = Server(_free_port())
    directory = server_directory / "valkey"
    directory.mkdir()
    client = redis.Redis(port=server.port)
    command = valkey.command(directory, server.port)
    for _ in _serve(command, server.port, server_directory / "valkey.log", signal.SIGTERM, client.ping):
        yield server
    client.close()


@pytest.fixture
def redis_url(valkey_server: Server) -> str:
    """The address of an empty Valkey."""
    with redis.Redis(port=valkey_server.port) as client:
        client.flushall()
    return valkey.url(valkey_server.port)
