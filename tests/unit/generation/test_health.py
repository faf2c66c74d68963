"""An engine is stuck when it has work and does none; one that has no work is not, whatever waits for its clients."""

import asyncio

import httpx
import pytest

from services.generation.client.engine import EngineClient
from services.generation.client.engine_errors import EngineDownError
from services.generation.service.replica import Replica
from services.generation.settings import GenerationSettings


def answer(request: httpx.Request) -> httpx.Response:
    """An engine that answers probes and never makes a token."""
    model = {"id": "base", "parent": None, "root": "/base", "max_model_len": 64}
    answers = {"/weight_info": {"weight_version": "default"}, "/v1/models": {"data": [model]}}
    return httpx.Response(200, json=answers.get(request.url.path, {}))


@pytest.mark.parametrize("is_at_work", [True, False])
async def test_only_an_engine_with_work_is_stuck(is_at_work: bool) -> None:
    client = EngineClient("http://engine", 1, transport=httpx.MockTransport(answer))
    replica = Replica(client, GenerationSettings(engine_stall_s=0.02))
    await replica.health.probe()
    async with replica.slot():  # a client that reads slowly keeps its place
        work = asyncio.create_task(replica.health.while_up(asyncio.Event().wait())) if is_at_work else None
        await asyncio.sleep(0)
        for _ in range(2):
            await replica.health.probe()
            await asyncio.sleep(0.03)
        await replica.health.probe()
    assert (replica.health.failures > 0) == is_at_work
    if work is not None:
        with pytest.raises(EngineDownError, match="worked on none"):
            await work
