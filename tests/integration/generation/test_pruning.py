"""Weights of versions that nobody needs are removed; the policies stay, and say so to whoever asks for them."""

import asyncio
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from services.generation.repository import PolicyRepository
from shared.artifacts import hash_directory
from shared.contracts.policies import Policy, PolicyKind, WeightsState
from shared.db import Database
from tests.integration.generation.conftest import World, write_weights

pytestmark = pytest.mark.integration
RUN = UUID(int=3)


async def publish(
    world: World, version: int, base: Policy | None, directory: Path | None = None, **more: object
) -> Policy:
    """A version of the run: an adapter on `base`, or full weights."""
    name, kind = f"rl-{version}", PolicyKind.ADAPTER if base else PolicyKind.CHECKPOINT
    directory = directory or write_weights(world.directory / "policies" / name, name, adapter=base is not None)
    fields = {"uri": str(directory), "content_hash": hash_directory(directory), "version": version, "run_id": str(RUN)}
    return await world.register(name, kind, base, **(fields | more))


def is_there(policy: Policy) -> bool:
    return Path(policy.uri).exists()


async def prune(world: World, policy: Policy) -> httpx.Response:
    return await world.http.post(f"/v1/policies/{policy.id}/prune")


def code(response: httpx.Response) -> str | None:
    return None if response.is_success else response.json()["error"]["code"]


async def test_an_intermediate_version_is_removed_and_says_so(world: World) -> None:
    base = await world.register("base", PolicyKind.BASE)
    old, new = [await publish(world, version, base) for version in (1, 2)]
    assert await world.text(old) == "base+rl-1"
    answers = await asyncio.gather(*(prune(world, old) for _ in range(3)))
    assert [answer.json()["weights"] for answer in answers] == ["pruned"] * 3
    assert not is_there(old)
    body = {"policy_id": str(old.id), "prompts": [{"id": "a", "text": "a"}]}
    for path, asked in (
        ("/v1/samples", body),
        (f"/v1/policies/{old.id}/live", {}),
        ("/v1/chat/completions", {"model": str(old.id), "messages": [], "stream": True}),
    ):
        refused = await world.http.post(path, json=asked)
        assert (refused.status_code, code(refused)) == (409, "artifact_pruned")
    listed = (await world.http.get("/v1/policies")).json()
    assert {policy["name"]: policy["weights"] for policy in listed} == {
        "base": "kept",
        "rl-1": "pruned",
        "rl-2": "kept",
    }
    world.engine.reset()  # a restart: what was pruned is not loaded again
    while world.engine.label == "default":
        await asyncio.sleep(0.01)
    await world.until_ready()
    assert await world.text(new) == "base+rl-2"
    assert str(old.id) not in world.engine.adapters


async def test_what_others_need_or_is_no_intermediate_version_stays(world: World) -> None:
    base = await world.register("base", PolicyKind.BASE)
    start, resident, newest = [await publish(world, version, None) for version in (1, 2, 3)]
    child = await publish(world, 9, None, run_id=str(UUID(int=4)), parent_policy_id=str(start.id))
    assert await world.text(resident) == "rl-2"
    answers = [code(await prune(world, policy)) for policy in (base, newest, child, start, resident)]
    assert answers == ["policy_not_prunable"] * 3 + ["policy_in_use"] * 2
    assert await world.text(newest) == "rl-3"
    assert code(await prune(world, resident)) is None
    for policy in (base, start, newest):
        assert await world.text(policy) == policy.name


async def test_weights_that_two_policies_name_stay_until_neither_needs_them(world: World) -> None:
    first = await publish(world, 1, None)
    same = await publish(world, 2, None, Path(first.uri))
    last = await publish(world, 3, None)
    assert (await prune(world, first)).json()["weights"] == "pruned"
    assert await world.text(same) == "rl-1"
    assert await world.text(last) == "rl-3"
    assert (await prune(world, same)).json()["weights"] == "pruned"
    assert not is_there(first)


async def test_what_a_crash_left_is_finished(world: World, database_url: str) -> None:
    left, other, _ = [await publish(world, version, None) for version in (1, 2, 3)]
    database = Database(database_url)
    async with database.transaction() as session:
        await PolicyRepository(session).set_weights(left.id, WeightsState.PRUNING)
    await database.close()
    (Path(left.uri) / "model.safetensors").unlink()  # half of it is gone
    assert code(await world.http.post(f"/v1/policies/{left.id}/live")) == "artifact_pruned"
    assert code(await prune(world, other)) is None
    assert (await world.http.get(f"/v1/policies/{left.id}")).json()["weights"] == "pruned"
    assert not is_there(left)
