"""Runs through the real API, broker, worker and trainer process, up to where the policy is asked for."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
import redis

from services.training import service
from services.training.checkpoints import CheckpointStore
from services.training.main import create_app
from services.training.settings import TrainingSettings
from shared.bus import ADVANCE_TASK, CONTROL_QUEUE
from shared.contracts.recipe import SftRecipe
from shared.contracts.runs import RunIn, RunMethod
from tests.integration.training.fakes import FakePeers
from tests.unit.training.test_checkpoints import write

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.fixture
def worker(settings: TrainingSettings) -> Iterator[subprocess.Popen[bytes]]:
    """A training worker as it is deployed."""
    options = ["worker", "--queues", "training", "--concurrency", "1", "--loglevel", "warning", "--without-mingle"]
    process = subprocess.Popen([sys.executable, "-m", "celery", "-A", "services.training.tasks:celery", *options])
    yield process
    process.kill()
    process.wait(timeout=60)


def run_in(peers: FakePeers, directory: Path, campaign_id: UUID, key: str) -> RunIn:
    """A run from weights that are on no disk any more."""
    (directory / "gone").mkdir(exist_ok=True)
    start = peers.add_base(campaign_id, directory / "gone")
    (directory / "gone").rmdir()
    return RunIn(
        campaign_id=campaign_id,
        key=key,
        method=RunMethod.SFT,
        start_policy_id=start.id,
        snapshot_id=peers.add_snapshot(campaign_id, directory, [{"question_id": "1"}]).id,
        sft=SftRecipe(),
        publish_name=key,
        first_version=1,
    )


async def test_runs_are_executed_and_given_back_by_a_worker_that_stops(
    settings: TrainingSettings,
    worker: subprocess.Popen[bytes],
    peers: FakePeers,
    tmp_path: Path,
    campaign_id: UUID,
) -> None:
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://training") as api,
    ):

        async def create(key: str) -> dict[str, str]:
            body = run_in(peers, tmp_path, campaign_id, key).model_dump(mode="json")
            created: dict[str, str] = (await api.post("/v1/runs", json=body)).json()
            return created

        async def read(run: dict[str, str]) -> dict[str, str]:
            current: dict[str, str] = (await api.get(f"/v1/runs/{run['id']}")).json()
            return current

        run_id = service.id_of_run(campaign_id, "without-policy")
        store = CheckpointStore(settings.artifacts_url, run_id, 0, tmp_path / "cache")
        for step in (1, 2):
            write(store, step)
        run = await create("without-policy")
        while (done := await read(run))["state"] in ("queued", "running"):
            assert worker.poll() is None
            await asyncio.sleep(0.2)
        assert (done["state"], done["failure"]) == ("failed", "bad_model")
        assert run["start_policy_id"] in done["message"]
        broker = redis.Redis.from_url(settings.redis_url)
        popped = await asyncio.to_thread(broker.blpop, [CONTROL_QUEUE], 60)
        broker.close()
        assert isinstance(popped, (list, tuple))
        message = json.loads(popped[1])
        assert message["headers"]["task"] == ADVANCE_TASK
        assert str(campaign_id) in message["headers"]["argsrepr"]

        peers.busy_after = 1  # the run is taken, its trainer waits
        run = await create("waiting-for-generation")
        while not peers.asked_while_busy:
            assert worker.poll() is None
            await asyncio.sleep(0.2)
        assert (await read(run))["state"] == "running"
        assert [step for _, step in store._stored()] == [2]  # of the run before, which failed
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 60) == 0
        given_back = await read(run)
        assert (given_back["state"], given_back["message"]) == ("queued", "The worker stopped.")
