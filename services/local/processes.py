"""The one table of Headwater's processes, as data: what runs, with which environment, after what, and when it is ready.

The supervisor executes it; tests hold docker-compose.yml and k8s/ against it. Order in the table is order of reading only:
each process starts as soon as those in `depends_on` are ready, and stops after those that depend on it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from services.local import engine, postgres, valkey
from services.local.directory import DataDirectory
from services.local.engine import ROOT, EngineModel
from services.local.ports import DEFAULT_PORTS
from shared.settings import Settings

MEGABYTE = 1 << 20
# A trainer with the tiny model. A larger one takes its weights once more at least (a frozen base in 16 bit), all of it several times.
_TRAINER_BYTES = 1024 * MEGABYTE
READY_PATH = "/health/ready"
API_SERVICES = ("pool", "generation", "verification", "training", "cascade", "gateway")


class Restart(StrEnum):
    """What to do when a process ends."""

    ALWAYS = "always"
    ONCE = "once"  # it runs to its end, and the end is its readiness


@dataclass(frozen=True)
class HttpProbe:
    """Ready when GET http://127.0.0.1:port/path answers 200."""

    port: int
    path: str = READY_PATH


@dataclass(frozen=True)
class TcpProbe:
    """Ready when the server answers `send` with bytes that begin with `expect`."""

    port: int
    send: bytes
    expect: bytes


@dataclass(frozen=True)
class CommandProbe:
    """Ready when the command ends with 0."""

    command: tuple[str, ...]


@dataclass(frozen=True)
class LogProbe:
    """Ready when a line of its log holds `text`."""

    text: str


@dataclass(frozen=True)
class ExitProbe:
    """Ready when it has ended with 0."""


Probe = HttpProbe | TcpProbe | CommandProbe | LogProbe | ExitProbe


@dataclass(frozen=True)
class ProcessSpec:
    """One process. `environment` is added to that of the supervisor; `memory_bytes` is what it took when measured."""

    name: str
    command: tuple[str, ...]
    ready: Probe
    depends_on: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    restart: Restart = Restart.ALWAYS
    port: int | None = None
    memory_bytes: int = 100 * MEGABYTE
    ready_deadline_s: float = 120
    stop_signal: signal.Signals = signal.SIGTERM
    stop_deadline_s: float = 10


@dataclass(frozen=True)
class StackSettings:
    """Everything the table depends on: where data lives, which ports, which model, this installation's secrets."""

    directory: DataDirectory
    model: EngineModel
    ports: Mapping[str, int] = field(default_factory=lambda: dict(DEFAULT_PORTS))
    postgres_password: str = ""
    service_token: str = ""
    flower_password: str = ""

    def url(self, name: str) -> str:
        """The base URL of an HTTP process."""
        return f"http://127.0.0.1:{self.ports[name]}"


def process_table(settings: StackSettings) -> tuple[ProcessSpec, ...]:
    """All processes of one machine, in the order a question meets them."""
    return (*_stores(settings), *_set_up(settings), _engine(settings), *_apis(settings), *_workers(settings))


def environment(settings: StackSettings) -> dict[str, str]:
    """What every process is told: addresses, the service token, and how threads wait."""
    addresses = {f"HEADWATER_{name.upper()}_URL": settings.url(name) for name in API_SERVICES}
    return addresses | {
        "HEADWATER_DATABASE_URL": postgres.url(settings.ports["postgres"], settings.postgres_password),
        "HEADWATER_REDIS_URL": valkey.url(settings.ports["valkey"]),
        "HEADWATER_ENGINE_URLS": settings.url("engine"),
        "HEADWATER_ENGINE_MODEL": settings.model.path,
        "HEADWATER_ENGINE_MODEL_NAME": settings.model.name,
        "HEADWATER_ARTIFACTS_URL": str(settings.directory.artifacts),
        "HEADWATER_WEIGHTS_CACHE": str(settings.directory.weights_cache),
        "HEADWATER_TOKEN_RETENTION_DAYS": f"{Settings().token_retention_days:g}",
        "HEADWATER_API_KEY_FILE": str(settings.directory.api_key),
        "HEADWATER_SERVICE_TOKEN": settings.service_token,
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        **_threads(1),
    }


def _threads(count: int) -> dict[str, str]:
    return {name: str(count) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def _python(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *words)


def _stores(settings: StackSettings) -> tuple[ProcessSpec, ...]:
    ports, directory = settings.ports, settings.directory
    answers = (f"{postgres.programs()}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(ports["postgres"]))
    return (
        ProcessSpec(
            "postgres",
            postgres.command(directory.postgres, ports["postgres"]),
            CommandProbe(answers),
            port=ports["postgres"],
            memory_bytes=200 * MEGABYTE,
            stop_signal=signal.SIGINT,  # fast shutdown: ends sessions, writes a checkpoint
            stop_deadline_s=30,
        ),
        ProcessSpec(
            "valkey",
            valkey.command(directory.valkey, ports["valkey"]),
            TcpProbe(ports["valkey"], b"PING\r\n", b"+PONG"),
            port=ports["valkey"],
            memory_bytes=20 * MEGABYTE,
        ),
    )


def _set_up(settings: StackSettings) -> tuple[ProcessSpec, ...]:
    shared = environment(settings)
    upgrade = _python("alembic", "--config", str(ROOT / "alembic.ini"), "upgrade", "head")
    return (
        ProcessSpec("migrate", upgrade, ExitProbe(), ("postgres",), shared, Restart.ONCE),
        ProcessSpec(
            "bootstrap", _python("services.gateway.bootstrap"), ExitProbe(), ("migrate",), shared, Restart.ONCE
        ),
    )


def _engine(settings: StackSettings) -> ProcessSpec:
    port = settings.ports["engine"]
    return ProcessSpec(
        "engine",
        engine.command(settings.model, port),
        HttpProbe(port, "/health"),
        environment=environment(settings) | _threads(settings.model.threads) | engine.environment(settings.model),
        port=port,
        memory_bytes=settings.model.memory_bytes,
        ready_deadline_s=900,
    )


def _apis(settings: StackSettings) -> tuple[ProcessSpec, ...]:
    needs = {
        "pool": ("migrate", "valkey"),
        "generation": ("migrate", "valkey"),
        "verification": (),
        "training": ("migrate", "valkey"),
        "cascade": ("migrate", "valkey"),
        "gateway": ("bootstrap", "pool", "generation", "verification", "training", "cascade"),
    }
    return tuple(_api(settings, name, needs[name]) for name in API_SERVICES)


def _api(settings: StackSettings, name: str, depends_on: tuple[str, ...]) -> ProcessSpec:
    port = settings.ports[name]
    return ProcessSpec(
        name,
        _python("shared.serve", f"services.{name}.main:create_app", "--host", "127.0.0.1", "--port", str(port)),
        HttpProbe(port),
        depends_on,
        environment(settings),
        port=port,
        memory_bytes=130 * MEGABYTE,
    )


def _workers(settings: StackSettings) -> tuple[ProcessSpec, ...]:
    port = settings.ports["flower"]
    return (
        _worker(settings, "sampling", queue="sampling", concurrency=2, depends_on=("gateway", "engine")),
        _worker(settings, "cascade", queue="control", concurrency=1, depends_on=("gateway",)),
        _worker(settings, "training", queue="training", concurrency=1, depends_on=("gateway",)),
        ProcessSpec(
            "beat",
            _celery(
                "cascade", "beat", "--scheduler", "redbeat.RedBeatScheduler", "--pidfile", "", "--loglevel", "INFO"
            ),
            LogProbe("beat: Starting"),
            ("gateway",),
            environment(settings),
        ),
        ProcessSpec(
            "flower",
            _celery("cascade", "flower", "--address=127.0.0.1", f"--port={port}"),
            HttpProbe(port, "/healthcheck"),
            ("valkey", "migrate"),
            environment(settings) | {"FLOWER_BASIC_AUTH": f"headwater:{settings.flower_password}"},
            port=port,
        ),
    )


def _worker(
    settings: StackSettings, service: str, *, queue: str, concurrency: int, depends_on: tuple[str, ...]
) -> ProcessSpec:
    options = ("--queues", queue, "--hostname", f"{queue}@%h", "--concurrency", str(concurrency), "--loglevel", "INFO")
    threads, memory_bytes = 1, (100 + 60 * concurrency) * MEGABYTE
    if service == "training":
        threads, memory_bytes = 2, memory_bytes + _TRAINER_BYTES + settings.model.weights_bytes
    return ProcessSpec(
        f"{service}-worker",
        _celery(service, "worker", *options, "--without-gossip", "--without-mingle"),
        LogProbe(" ready."),
        depends_on,
        environment(settings) | _threads(threads),
        memory_bytes=memory_bytes,
    )


def _celery(service: str, *words: str) -> tuple[str, ...]:
    return _python("celery", "--workdir", str(Path(ROOT)), "-A", f"services.{service}.tasks:celery", *words)
