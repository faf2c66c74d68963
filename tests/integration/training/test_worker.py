"""The way of a run through the real API, broker, worker and trainer process; the policy it names does not exist."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from uuid import UUID, uuid4

import httpx
import pytest
import redis

from services.training.main import create_app
from services.training.settings import TrainingSettings
from shared.bus import ADVANCE_TASK, CONTROL_QUEUE
from shared.contracts.recipe import SftRecipe
from shared.contracts.runs import RunIn, RunMethod

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.fixture
def worker(settings: TrainingSettings) -> Iterator[subprocess.Popen[bytes]]:
    """A training worker as it is deployed."""
    options = ["worker", "--queues", "training", "--pool", "solo", "--loglevel", "warning", "--without-mingle"]
    process = subprocess.Popen([sys.executable, "-m", "celery", "-A", "services.training.tasks:celery", *options])
    yield process
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0, "a worker that is asked to stop, stops"


async def test_a_created_run_is_executed_and_the_cascade_hears_of_its_end(
    settings: TrainingSettings, worker: subprocess.Popen[bytes], campaign_id: UUID
) -> None:
    run = RunIn(
        campaign_id=campaign_id,
        key="sft-0",
        method=RunMethod.SFT,
        start_policy_id=uuid4(),
        snapshot_id=uuid4(),
        sft=SftRecipe(),
        publish_name="sft-0",
        first_version=1,
    )
    transport = httpx.ASGITransport(create_app(settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://training") as api:
        created = (await api.post("/v1/runs", json=run.model_dump(mode="json"))).json()
        done = created
        while done["state"] in ("queued", "running"):
            assert worker.poll() is None
            await asyncio.sleep(0.2)
            done = (await api.get(f"/v1/runs/{created['id']}")).json()
    assert (done["state"], done["failure"]) == ("failed", "bad_model")
    assert str(run.start_policy_id) in done["message"]
    broker = redis.Redis.from_url(settings.redis_url)
    popped = await asyncio.to_thread(broker.blpop, [CONTROL_QUEUE], 60)
    broker.close()
    assert isinstance(popped, (list, tuple))
    message = json.loads(popped[1])
    assert message["headers"]["task"] == ADVANCE_TASK
    assert str(campaign_id) in message["headers"]["argsrepr"]
