"""One group, one policy version: whatever happens to the engine, an answer comes from the weights that were asked for."""

import asyncio

import httpx
import pytest

from services.generation.main import create_app
from shared.contracts.base import unpack_float32, unpack_int32
from shared.contracts.policies import PolicyKind
from tests.integration.generation.conftest import World, make_settings
from tests.integration.generation.fake_engine import Served, served

pytestmark = pytest.mark.integration
PROMPTS = tuple(f"question {index}" for index in range(12))


async def test_mixed_requests_are_each_answered_by_their_own_policy(world: World) -> None:
    base = await world.register("base", PolicyKind.BASE)
    other = await world.register("other", PolicyKind.CHECKPOINT)
    over_base = await world.register("lora-a", PolicyKind.ADAPTER, base)
    over_other = await world.register("lora-b", PolicyKind.ADAPTER, other)
    expected = {base: "base", other: "other", over_base: "base+lora-a", over_other: "other+lora-b"}
    answers = await asyncio.gather(*(world.sample(policy, *PROMPTS, n=2) for policy in expected for _ in range(3)))
    for lines, said in zip(answers, [said for said in expected.values() for _ in range(3)], strict=True):
        assert {sample.text for line in lines.values() for sample in line.samples} == {said}
        assert all(len(line.samples) == 2 for line in lines.values())


async def test_tokens_logprobs_and_offsets_have_one_length_and_the_last_offset_ends_the_text(world: World) -> None:
    base = await world.register("base", PolicyKind.BASE)
    line = (await world.sample(base, "ab"))["ab"]
    sample = line.samples[0]
    assert unpack_int32(line.prompt_token_ids) == [3, ord("a"), ord("b"), 4]
    assert unpack_int32(sample.token_ids) == [*map(ord, "base"), 1]
    assert unpack_int32(sample.token_ends) == [1, 2, 3, 4, 4]
    assert unpack_float32(sample.logprobs) == [-0.5] * 5


async def test_a_switch_waits_for_running_requests(world: World) -> None:
    base = await world.register("base", PolicyKind.BASE)
    other = await world.register("other", PolicyKind.CHECKPOINT)
    await world.text(base)
    world.engine.hold.clear()
    running = asyncio.create_task(world.text(base))
    while not world.engine.running:
        await asyncio.sleep(0.01)
    waiting = asyncio.create_task(world.text(other))
    await asyncio.sleep(0.1)
    assert world.engine.resident.endswith("base")
    world.engine.hold.set()
    assert (await running, await waiting) == ("base", "other")


@pytest.mark.parametrize("overrides", [{"engine_probe_every_s": 3600.0}])
async def test_an_answer_of_an_engine_that_restarted_unseen_does_not_count(world: World) -> None:
    other = await world.register("other", PolicyKind.CHECKPOINT)
    assert await world.text(other) == "other"
    world.engine.reset()
    line = (await world.sample(other, "hi"))["hi"]
    assert (line.error, line.samples) == ("weights-replaced", ())
    assert await world.text(other) == "other"


async def test_a_restarted_engine_has_its_policies_again_before_traffic(world: World) -> None:
    base = await world.register("base", PolicyKind.BASE)
    adapter = await world.register("lora-a", PolicyKind.ADAPTER, base)
    assert await world.text(adapter) == "base+lora-a"
    port = world.engine_server.port
    await world.engine_server.stop()
    assert (await world.sample(adapter, "hi"))["hi"].error == "engine-down"
    world.engine.reset()
    again = Served(world.engine.app, port)
    await again.start()
    try:
        await world.until_ready()
        assert list(world.engine.adapters) == [str(adapter.id)]
        assert await world.text(adapter) == "base+lora-a"
    finally:
        await again.stop()


async def test_generation_that_restarts_believes_the_engines_label(world: World, database_url: str) -> None:
    other = await world.register("other", PolicyKind.CHECKPOINT)
    adapter = await world.register("lora-b", PolicyKind.ADAPTER, other)
    assert await world.text(adapter) == "other+lora-b"
    reloads = list(world.engine.reloads)
    settings = make_settings(database_url, world.engine_server.url, world.directory / "base", world.directory, {})
    async with served(create_app(settings)) as api, httpx.AsyncClient(base_url=api.url, trust_env=False) as http:
        second = World(http, world.engine, world.engine_server, world.directory)
        await second.until_ready()
        assert await second.text(other) == "other"
        assert await second.text(adapter) == "other+lora-b"
    assert world.engine.reloads == reloads


async def test_a_crash_in_a_switch_is_not_taken_for_loaded_weights(world: World) -> None:
    other = await world.register("other", PolicyKind.CHECKPOINT)
    await world.text(other)
    world.engine.label, world.engine.resident = "loading.0123", "half-replaced"
    world.engine.unpaused.clear()
    while world.engine.reloads[-1:] != [other.uri] or len(world.engine.reloads) < 2:
        await asyncio.sleep(0.02)
    assert await world.text(other) == "other"


async def test_refused_weights_are_a_conflict_and_the_engine_keeps_what_it_had(world: World) -> None:
    base = await world.register("base", PolicyKind.BASE)
    broken = await world.register("broken", PolicyKind.CHECKPOINT)
    broken_adapter = await world.register("broken-lora", PolicyKind.ADAPTER, base)
    world.engine.broken = {broken.uri, broken_adapter.uri}
    assert await world.text(base) == "base"
    for policy in (broken, broken_adapter):
        response = await world.http.post(f"/v1/policies/{policy.id}/live")
        assert response.status_code == httpx.codes.CONFLICT
        assert response.json()["error"]["code"] == "policy_not_loadable"
        assert policy.uri in response.json()["error"]["message"]
        assert (await world.sample(policy, "hi"))["hi"].error == "policy-not-loadable"
    assert world.engine.resident.endswith("/base")
    assert await world.text(base) == "base"


async def test_an_engine_on_the_cpu_that_would_keep_its_old_output_head_is_refused(world: World) -> None:
    world.engine.methods = {"reload_weights"}
    other = await world.register("other", PolicyKind.CHECKPOINT)
    refused = await world.http.post(f"/v1/policies/{other.id}/live")
    assert refused.status_code == httpx.codes.CONFLICT
    assert "--worker-extension-cls" in refused.json()["error"]["message"]
    world.engine.device = "cuda"
    assert await world.text(other) == "other"


async def test_live_says_what_the_engine_holds(world: World) -> None:
    base = await world.register("base", PolicyKind.BASE)
    other = await world.register("other", PolicyKind.CHECKPOINT)
    assert not base.live
    for _ in range(2):
        assert (await world.http.post(f"/v1/policies/{base.id}/live")).json()["live"]
    assert (await world.http.post(f"/v1/policies/{other.id}/live")).json()["live"]
    assert not (await world.http.get(f"/v1/policies/{base.id}")).json()["live"]


async def test_least_recently_used_adapters_make_room(world: World) -> None:
    base = await world.register("base", PolicyKind.BASE)
    adapters = [await world.register(f"lora-{index}", PolicyKind.ADAPTER, base) for index in range(6)]
    for index, adapter in enumerate(adapters):
        assert await world.text(adapter) == f"base+lora-{index}"
    assert list(world.engine.adapters) == [str(adapter.id) for adapter in adapters[-4:]]
    assert await world.text(adapters[0]) == "base+lora-0"
