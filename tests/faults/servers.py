"""Real servers that can be killed as a machine dies, and come back: Postgres, Valkey, the pool, any client process."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import asyncpg
import httpx

from services.local import orphans, postgres, valkey

ROOT = Path(__file__).parents[2]
START_DEADLINE_S = 90.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Killable:
    """A process that is killed with all its children, and started again; its output goes into one log."""

    def __init__(self, command: tuple[str, ...], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.command = command
        self.log = log
        self._environment = os.environ | (environment or {})
        self.process = self._begin()

    def _begin(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=orphans.adopted_by(os.getpid(), signal.SIGKILL),
            )

    def start(self) -> None:
        """Start it once more."""
        self.process = self._begin()

    def kill(self) -> None:
        """kill -9 of it and of every process that it began."""
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        self.process.kill()
        for pid in children.stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        self.process.wait()

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end and wait; one that is deaf is killed."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()

    def last_words(self, characters: int = 2000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-characters:]


class KillablePostgres(Killable):
    """A Postgres with its durable defaults."""

    def __init__(self, directory: Path) -> None:
        self._port = free_port()
        postgres.initialise(directory, "test")
        self.url = postgres.url(self._port, "test")
        super().__init__(postgres.command(directory, self._port), directory.with_name("postgres.log"))

    def revive(self) -> None:
        """Start it again if it has ended: a killed server's memory segment can refuse a new one for some seconds."""
        if self.process.poll() is not None:
            self.start()

    async def until_ready(self) -> None:
        """Wait for it."""
        async with asyncio.timeout(START_DEADLINE_S):
            while True:
                self.revive()
                with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    connection = await asyncpg.connect(self.url.replace("+asyncpg", ""))
                    await connection.close()
                    return
                await asyncio.sleep(0.1)

    def stop(self, with_signal: signal.Signals = signal.SIGINT) -> None:
        """A fast and clean end."""
        super().stop(with_signal)


class KillableValkey(Killable):
    """A Valkey whose memory can be lost."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._directory = directory
        directory.mkdir()
        super().__init__(valkey.command(directory, self.port), directory.with_name("valkey.log"))

    def wipe(self) -> None:
        """Kill it and lose its files; it comes back empty."""
        self.kill()
        shutil.rmtree(self._directory)
        self._directory.mkdir()
        self.start()


class KillablePool(Killable):
    """The pool's API in a process of its own."""

    def __init__(self, directory: Path, database_url: str, redis_url: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        serve = ("shared.serve", "services.pool.main:create_app", "--host", "127.0.0.1", "--port", str(self.port))
        command = (sys.executable, "-m", *serve)
        environment = {
            "HEADWATER_DATABASE_URL": database_url,
            "HEADWATER_REDIS_URL": redis_url,
            "HEADWATER_ARTIFACTS_URL": str(directory / "artifacts"),
            "HEADWATER_SERVICE_TOKEN": "",
        }
        super().__init__(command, directory / "pool.log", environment)

    def until_ready(self) -> None:
        """Wait for its first answer."""
        until = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < until:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health/ready", trust_env=False, timeout=10).is_success:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise TimeoutError(f"the pool is not ready: {self.last_words()}")


def migrate(database_url: str) -> None:
    """`alembic upgrade head`."""
    environment = os.environ | {"HEADWATER_DATABASE_URL": database_url}
    upgrade = [sys.executable, "-m", "alembic", "upgrade", "head"]
    result = subprocess.run(upgrade, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
