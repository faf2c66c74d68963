"""The beat's sweep, on a real broker and a real database."""

import json
from base64 import b64decode

import pytest
import redis

from services.cascade import tasks
from services.cascade.service.campaigns import Campaigns
from shared.bus import DRAIN_TASK, EXECUTE_TASK, SAMPLING_QUEUE, TRAINING_QUEUE
from shared.contracts.campaigns import Campaign, CampaignStatus
from shared.contracts.recipe import SftRecipe
from shared.contracts.runs import RunIn, RunMethod
from tests.integration.cascade.world import World

pytestmark = pytest.mark.integration
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def broker(redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
    """An empty broker, and an environment in which no service answers."""
    monkeypatch.setenv("HEADWATER_DATABASE_URL", database_url)
    for service in ("POOL", "GENERATION", "TRAINING"):
        monkeypatch.setenv(f"HEADWATER_{service}_URL", NOWHERE)
    tasks.celery.conf.broker_url = redis_url
    return redis.Redis.from_url(redis_url)


def _hints(broker: redis.Redis, queue: str) -> list[tuple[str, list[str]]]:
    messages = [json.loads(message) for message in broker.lrange(queue, 0, -1)]
    assert all(message["headers"]["expires"] for message in messages), "a hint that never expires piles up"
    return [(message["headers"]["task"], json.loads(b64decode(message["body"]))[0]) for message in messages]


def test_beat_sweeps_every_two_seconds():
    (entry,) = tasks.celery.conf.beat_schedule.values()
    assert (entry["task"], entry["schedule"], entry["options"]["queue"]) == ("cascade.sweep", 2.0, "control")
    assert entry["options"]["expires"] <= 10
    assert {"cascade.sweep", "cascade.advance"} <= set(tasks.celery.tasks)


def test_a_sweep_with_everything_down_says_so_and_sends_its_hints(
    broker: redis.Redis, campaign: Campaign, campaigns: Campaigns
):
    tasks.sweep()
    tasks.advance(str(campaign.id))
    assert _hints(broker, SAMPLING_QUEUE) == [(DRAIN_TASK, [])]


async def test_its_campaign_waits(broker: redis.Redis, campaign: Campaign, campaigns: Campaigns):
    async with tasks._wired() as (advancer, peers):
        await tasks._hint_runs(peers)
        await advancer.advance_all()
    waiting = await campaigns.get(campaign.id)
    assert (waiting.status, waiting.message) == (
        CampaignStatus.WAITING,
        "Stage register waits: pool does not answer; trying again.",
    )
    assert _hints(broker, TRAINING_QUEUE) == []


async def test_queued_runs_are_hinted(broker: redis.Redis, campaign: Campaign, world: World):
    run = await world.peers.training.create_run(
        RunIn(
            campaign_id=campaign.id,
            key="sft-0",
            method=RunMethod.SFT,
            start_policy_id=campaign.id,
            snapshot_id=campaign.id,
            sft=SftRecipe(),
            publish_name="sft-0",
            first_version=1,
        )
    )
    await tasks._hint_runs(world.peers)
    assert _hints(broker, TRAINING_QUEUE) == [(EXECUTE_TASK, [str(run.id)])]
