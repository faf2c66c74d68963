"""Every API as a real server on 127.0.0.1, over one Postgres and one Valkey, with a stand-in for the engine."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from services.cascade.main import create_app as cascade
from services.gateway.keys import make_key
from services.gateway.main import create_app as gateway
from services.gateway.repository import KeyRepository
from services.generation.main import create_app as generation
from services.generation.settings import GenerationSettings
from services.local import valkey
from services.pool.main import create_app as pool
from services.training.main import create_app as training
from services.training.settings import TrainingSettings
from services.verification.main import create_app as verification
from shared.db import Database
from shared.serve import BoundedHead
from shared.settings import Settings
from tests.conftest import Server
from tests.integration.generation.conftest import write_weights
from tests.integration.generation.fake_engine import FakeEngine

SERVICES = ("pool", "cascade", "training", "generation", "verification", "gateway")
START_DEADLINE_S = 60


@dataclass(frozen=True)
class Apis:
    """The running services by address, a key for the gateway, and their database."""

    urls: dict[str, str]
    key: str
    database_url: str

    def headers(self, service: str) -> dict[str, str]:
        """What a request to this service needs."""
        return {"Authorization": f"Bearer {self.key}"} if service == "gateway" else {}


def _apps(urls: dict[str, str], database_url: str, redis_url: str, directory: Path) -> dict[str, FastAPI]:
    base = write_weights(directory / "base", "base")
    addresses = {f"{name}_url": url for name, url in urls.items() if name != "engine"}
    fields = {"database_url": database_url, "redis_url": redis_url, "artifacts_url": str(directory), **addresses}
    engine = {"engine_urls": urls["engine"], "engine_model": str(base), "weights_cache": directory / "cache"}
    waits = {"engine_probe_every_s": 0.05, "engine_wait_s": 1.0}
    settings = Settings.model_validate(fields)
    return {
        "engine": FakeEngine(str(base)).app,
        "pool": pool(settings),
        "cascade": cascade(settings),
        "training": training(TrainingSettings.model_validate(fields)),
        "generation": generation(GenerationSettings.model_validate(fields | engine | waits)),
        "verification": verification(),
        "gateway": gateway(settings),
    }


async def _serve(
    apps: dict[str, FastAPI], listeners: dict[str, socket.socket], database_url: str, ready: "Future[str]"
) -> None:
    """Serve all until the task is cancelled; `ready` gets a key."""
    database = Database(database_url)
    async with database.transaction() as session:
        key = await make_key(KeyRepository(session), "test")
    await database.close()
    servers = [
        (
            uvicorn.Server(uvicorn.Config(app, http=BoundedHead, log_level="critical", timeout_graceful_shutdown=1)),
            listeners[name],
        )
        for name, app in apps.items()
    ]
    tasks = [asyncio.create_task(server.serve(sockets=[listener])) for server, listener in servers]
    try:
        while not all(server.started for server, _ in servers):
            await asyncio.sleep(0.02)
        ready.set_result(key)
        await asyncio.Event().wait()
    finally:
        for server, _ in servers:
            server.should_exit = True
        await asyncio.gather(*tasks)


def _listener() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


@pytest.fixture(scope="package")
def apis(
    postgres_server: Server,
    migrated_template: str,
    valkey_server: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Apis]:
    """All services, in a loop of a thread of its own."""
    asyncio.run(postgres_server.execute(f"CREATE DATABASE apis TEMPLATE {migrated_template} STRATEGY FILE_COPY"))
    database_url = postgres_server.database_url("apis")
    environment = pytest.MonkeyPatch()
    environment.setenv("HEADWATER_VERIFICATION_WORKERS", "1")
    listeners = {name: _listener() for name in ("engine", *SERVICES)}
    urls = {name: f"http://127.0.0.1:{listener.getsockname()[1]}" for name, listener in listeners.items()}
    apps = _apps(urls, database_url, valkey.url(valkey_server.port), tmp_path_factory.mktemp("apis"))
    loop, ready = asyncio.new_event_loop(), Future[str]()
    task = loop.create_task(_serve(apps, listeners, database_url, ready))
    thread = threading.Thread(target=loop.run_until_complete, args=(asyncio.wait([task]),))
    thread.start()
    try:
        yield Apis(urls, ready.result(START_DEADLINE_S), database_url)
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(START_DEADLINE_S)
        loop.close()
        environment.undo()
        asyncio.run(postgres_server.execute("DROP DATABASE apis WITH (FORCE)"))
