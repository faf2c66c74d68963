"""A tiny model, faked peers, and settings that point a trainer at them and at the real database."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from services.training.main import create_app
from services.training.settings import TrainingSettings
from services.training.tiny import make_tiny_model
from shared.db import Database
from tests.integration.training.fakes import FakePeers


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model of a few thousand parameters."""
    directory = tmp_path_factory.mktemp("tiny")
    make_tiny_model(directory, hidden_size=32, intermediate_size=64, layers=1, heads=2, max_positions=256)
    return directory


@pytest.fixture
def campaign_id() -> UUID:
    """A campaign."""
    return uuid4()


@pytest.fixture
def peers() -> Iterator[FakePeers]:
    """Pool and generation."""
    with FakePeers().serving() as served:
        yield served


@pytest.fixture
def settings(
    database_url: str, redis_url: str, peers: FakePeers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> TrainingSettings:
    """Settings, also in the environment for the trainer's process: one thread, so that sums are reproducible."""
    values = {
        "HEADWATER_DATABASE_URL": database_url,
        "HEADWATER_REDIS_URL": redis_url,
        "HEADWATER_POOL_URL": peers.url,
        "HEADWATER_GENERATION_URL": peers.url,
        "HEADWATER_ARTIFACTS_URL": str(tmp_path / "artifacts"),
        "HEADWATER_TRAINING_THREADS": "1",
        "HEADWATER_TRAINING_HEARTBEAT_S": "0.2",
        "HEADWATER_TRAINING_BACKOFF_S": "0",
        "HEADWATER_TRAINING_ATTEMPTS": "2",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return TrainingSettings()


@pytest.fixture
async def database(settings: TrainingSettings):
    """The database of the test."""
    opened = Database(settings.database_url, pool_size=2)
    yield opened
    await opened.close()


@pytest.fixture
async def api(settings: TrainingSettings) -> AsyncIterator[httpx.AsyncClient]:
    """The API in this process."""
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://training") as client,
    ):
        yield client
