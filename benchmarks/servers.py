"""Servers for the benchmarks: a Postgres of their own with fsync on, migrated, and a service's API in a process of its own.

As `headwater up` starts them, but on free ports and in a directory that is removed.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from services.local import orphans, postgres

ROOT = Path(__file__).parents[1]
TOKEN = "benchmark"
START_DEADLINE_S = 60.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def database() -> Iterator[str]:
    """The SQLAlchemy address of a new database with all tables."""
    directory = Path(tempfile.mkdtemp(prefix="headwater-benchmark-"))
    try:
        port = free_port()
        postgres.initialise(directory / "postgres", "benchmark")
        url = postgres.url(port, "benchmark")
        is_ready = (f"{postgres.programs()}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port))
        with process(
            postgres.command(directory / "postgres", port),
            signal.SIGINT,
            lambda: subprocess.run(is_ready, check=False).returncode == 0,
        ):
            upgrade = [sys.executable, "-m", "alembic", "upgrade", "head"]
            subprocess.run(upgrade, cwd=ROOT, env=os.environ | {"HEADWATER_DATABASE_URL": url}, check=True)
            yield url
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def api(
    app: str,
    ready: str,
    environment: Mapping[str, str],
    *options: str,
    serve: Sequence[str] = ("-m", "shared.serve"),
    python: str = sys.executable,
) -> Iterator[str]:
    """The base URL of an app (`module:name`), run by `python` and the server `serve`, once its path `ready` answers 200."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(url + ready, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    where = (app, "--host", "127.0.0.1", "--port", str(port), *options)
    with process((python, *serve, *where), signal.SIGTERM, answers, environment):
        yield url


@contextmanager
def pool_api(database_url: str) -> Iterator[httpx.AsyncClient]:
    """A client, with the service token, of the pool's API on this database. There is no bus: hints come to nothing."""
    environment = {
        "HEADWATER_DATABASE_URL": database_url,
        "HEADWATER_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "HEADWATER_SERVICE_TOKEN": TOKEN,
    }
    with api("services.pool.main:create_app", "/health/ready", environment) as url:
        yield httpx.AsyncClient(
            base_url=url, headers={"X-Headwater-Service-Token": TOKEN}, timeout=600, trust_env=False
        )


@contextmanager
def process(
    command: tuple[str, ...],
    stop: signal.Signals,
    is_ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    *,
    deadline_s: float = START_DEADLINE_S,
    words: Path | None = None,
) -> Iterator[None]:
    """A process from when it is ready until the block ends. What it says goes into the file `words`, or here.

    Raises RuntimeError when it does not become ready.
    """
    with ExitStack() as files:
        output = files.enter_context(words.open("wb")) if words else None
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | dict(environment or {}),
            preexec_fn=orphans.adopted_by(os.getpid(), stop),
            stdout=output,
            stderr=output,
        )
    try:
        until = time.monotonic() + deadline_s
        while not is_ready():
            if process.poll() is not None or time.monotonic() > until:
                if words is not None:
                    print(words.read_text(errors="replace")[-5000:], file=sys.stderr)
                raise RuntimeError(f"{' '.join(command)} did not become ready; its last words stand above.")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(stop)
        process.wait(timeout=60)
