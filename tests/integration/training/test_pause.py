"""Pause and resume: what the API answers, what workers may take, and that a trainer loses nothing by it."""

import asyncio
import threading
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from services.training import repository
from services.training.attempt import attempt_run
from services.training.failures import RunPausedError
from services.training.lease import RunLease
from services.training.settings import TrainingSettings
from shared.contracts.runs import Run, RunFailure, RunState
from shared.db import Database
from tests.integration.training import test_runs, test_trainer
from tests.integration.training.fakes import FakePeers
from tests.integration.training.test_runs import checkpoint_step, claim, expire_lease, read

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


async def ask(api: httpx.AsyncClient, run: Run, act: str) -> str:
    """The state after `pause`, `resume` or `cancel`."""
    answer = await api.post(f"/v1/runs/{run.id}/{act}")
    assert answer.status_code == 200, answer.text
    state: str = answer.json()["state"]
    return state


async def test_a_paused_run_is_not_taken_until_it_is_resumed(
    api: httpx.AsyncClient, database: Database, campaign_id: UUID
) -> None:
    run = await test_runs.create(database, campaign_id)
    assert [await ask(api, run, "pause") for _ in range(2)] == ["paused", "paused"]
    assert await claim(database, run.id) is None
    listed = await api.get("/v1/runs", params={"campaign": str(campaign_id), "state": "paused"})
    assert [item["id"] for item in listed.json()["items"]] == [str(run.id)]
    assert [await ask(api, run, "resume") for _ in range(2)] == ["queued", "queued"]
    assert await claim(database, run.id) == 1
    assert await ask(api, run, "resume") == "running"


async def test_a_running_run_is_paused_by_its_trainer(
    api: httpx.AsyncClient, database: Database, settings: TrainingSettings, campaign_id: UUID
) -> None:
    run = await test_runs.create(database, campaign_id)
    fence = await claim(database, run.id)
    assert fence is not None
    with RunLease(settings, run.id, fence) as lease:
        lease.check_pause()
        assert [await ask(api, run, "pause") for _ in range(2)] == ["pausing", "pausing"]
        await asyncio.to_thread(lease.wait, lease._beat())
        with pytest.raises(RunPausedError):
            lease.check_pause()
        await asyncio.to_thread(lease.pause)
    assert (await read(database, run.id)).state is RunState.PAUSED
    assert await claim(database, run.id) is None


async def test_whoever_resumes_a_run_that_is_still_pausing_changes_nothing(
    api: httpx.AsyncClient, database: Database, settings: TrainingSettings, campaign_id: UUID
) -> None:
    run = await test_runs.create(database, campaign_id)
    fence = await claim(database, run.id)
    assert fence is not None
    with RunLease(settings, run.id, fence) as lease:
        assert [await ask(api, run, act) for act in ("pause", "resume")] == ["pausing", "running"]
        await asyncio.to_thread(lease.wait, lease._beat())
        lease.check_pause()
        # The trainer had begun to write its checkpoint when somebody resumed the run.
        await asyncio.to_thread(lease.pause)
    assert (await read(database, run.id)).state is RunState.QUEUED


async def test_a_trainer_that_dies_while_it_pauses_leaves_a_paused_run(
    api: httpx.AsyncClient, database: Database, settings: TrainingSettings, campaign_id: UUID
) -> None:
    run = await test_runs.create(database, campaign_id)
    fence = await claim(database, run.id)
    assert fence is not None
    await ask(api, run, "pause")
    await expire_lease(database, run.id)
    assert (await read(database, run.id)).state is RunState.PAUSED
    assert await claim(database, run.id) is None
    assert await ask(api, run, "resume") == "queued"
    fence = await claim(database, run.id)
    assert fence == 2
    await ask(api, run, "pause")
    async with database.transaction() as session:
        reason = RunFailure.CRASHED
        assert await repository.requeue(session, run.id, fence, "It crashed.", 0.0, blameless=False, failure=reason)
    after = await read(database, run.id)
    assert (after.state, after.message) == (RunState.PAUSED, "It crashed.")


async def test_a_run_that_is_over_is_neither_paused_nor_resumed(
    api: httpx.AsyncClient, database: Database, campaign_id: UUID
) -> None:
    run = await test_runs.create(database, campaign_id)
    await ask(api, run, "pause")
    assert await ask(api, run, "cancel") == "cancelled"
    for act in ("pause", "resume"):
        answer = await api.post(f"/v1/runs/{run.id}/{act}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "run_over")
        assert act in answer.json()["error"]["message"]
        assert (await api.post(f"/v1/runs/{uuid4()}/{act}")).status_code == 404


async def test_an_rl_run_that_waits_for_groups_pauses_with_a_checkpoint_of_its_last_step(
    api: httpx.AsyncClient,
    database: Database,
    settings: TrainingSettings,
    peers: FakePeers,
    tiny_model: Path,
    campaign_id: UUID,
) -> None:
    groups = await asyncio.to_thread(test_trainer.rollouts, tiny_model, 4, 4)
    peers.waiting = groups[:2]
    wanted = test_trainer.rl_run(campaign_id, peers, tiny_model, steps=2, publish_every_steps=2)
    run = await test_trainer.create(database, wanted)
    attempt = asyncio.create_task(test_trainer.attempt(run, database, settings))
    while "waits for groups: 0 of 2" not in (await read(database, run.id)).message:
        assert not attempt.done()
        await asyncio.sleep(0.05)
    assert await ask(api, run, "pause") == "pausing"
    await attempt
    paused = await read(database, run.id)
    assert (paused.state, paused.step, paused.failure, paused.message) == (RunState.PAUSED, 1, None, "")
    assert await checkpoint_step(database, run.id) == 1
    assert peers.acknowledged == [0]
    peers.waiting, peers.requests = groups[2:], []
    assert await ask(api, run, "resume") == "queued"
    await test_trainer.attempt(run, database, settings)
    assert (await read(database, run.id)).state is RunState.SUCCEEDED
    assert {request.step for request in peers.requests} == {1}


async def test_a_paused_sft_run_goes_on_as_if_nothing_had_happened(
    api: httpx.AsyncClient,
    database: Database,
    settings: TrainingSettings,
    peers: FakePeers,
    tiny_model: Path,
    tmp_path: Path,
    campaign_id: UUID,
) -> None:
    async def create(key: str) -> Run:
        recipe = {"checkpoint_every_steps": 4, "weight_decay": 0.01}
        wanted = test_trainer.sft_run(campaign_id, peers, tiny_model, tmp_path, key, **recipe)
        return await test_trainer.create(database, wanted)

    undisturbed, paused = await create("undisturbed"), await create("paused")
    await test_trainer.attempt(undisturbed, database, settings)
    await attempt_run(paused.id, settings, "test", threading.Event(), test_trainer.at_step_5(PAUSE))
    half_way = await read(database, paused.id)
    assert (half_way.state, half_way.step) == (RunState.PAUSED, 6), half_way.message
    assert await checkpoint_step(database, paused.id) == 6
    assert await ask(api, paused, "resume") == "queued"
    await test_trainer.attempt(paused, database, settings)
    done = await read(database, paused.id)
    assert (done.state, done.tokens) == (RunState.SUCCEEDED, (await read(database, undisturbed.id)).tokens)
    assert await test_trainer.logged(database, paused.id) == await test_trainer.logged(database, undisturbed.id)


PAUSE = """
        lease = self.attempt.lease
        lease.wait(lease._record(lambda session: repository.pause(session, lease.run_id)))
        lease.wait(lease._beat())
"""
