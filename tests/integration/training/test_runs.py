"""Runs without a trainer: create once, one lease at a time, fenced writes, how attempts end."""

import asyncio
import errno
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from services.training import gauges, repository, service
from services.training.attempt import TrainerCommand, attempt_run
from services.training.lease import RunLease
from services.training.settings import TrainingSettings
from shared.contracts.recipe import SftRecipe
from shared.contracts.runs import Run, RunFailure, RunIn, RunMethod, RunMetric, RunState
from shared.db import Database
from tests.integration.training.fakes import FakePeers

pytestmark = pytest.mark.integration


def run_in(campaign_id: UUID, **changes: object) -> RunIn:
    values: dict[str, object] = {
        "campaign_id": campaign_id,
        "key": "sft-0",
        "method": RunMethod.SFT,
        "start_policy_id": UUID(int=1),
        "snapshot_id": UUID(int=2),
        "sft": SftRecipe(steps=10),
        "publish_name": "sft-0",
        "first_version": 1,
    }
    return RunIn.model_validate(values | changes)


async def create(database: Database, campaign_id: UUID) -> Run:
    async with database.transaction() as session:
        return (await service.create_run(session, run_in(campaign_id)))[0]


async def read(database: Database, run_id: UUID) -> Run:
    async with database.transaction() as session:
        return await service.get_run(session, run_id)


async def claim(database: Database, run_id: UUID) -> int | None:
    async with database.transaction() as session:
        row = await repository.claim_run(session, run_id, "test", 30.0)
    return None if row is None else row.fence


async def expire_lease(database: Database, run_id: UUID) -> None:
    statement = text("UPDATE training.runs SET lease_expires_at = now() - interval '1 second' WHERE id = :id")
    async with database.transaction() as session:
        await session.execute(statement, {"id": run_id})


async def checkpoint_step(database: Database, run_id: UUID) -> int | None:
    async with database.transaction() as session:
        row = await repository.run_by_id(session, run_id)
    assert row is not None
    step: int | None = row.checkpoint_step
    return step


def program(source: str) -> TrainerCommand:
    """A trainer that is a few lines of Python; `result` and `fence` are its arguments."""

    def command(_: UUID, fence: int, result: Path) -> Sequence[str]:
        return [sys.executable, "-c", source, str(result), str(fence)]

    return command


async def attempt(database: Database, settings: TrainingSettings, run: Run, source: str) -> Run:
    await attempt_run(run.id, settings, "test", threading.Event(), program(source))
    return await read(database, run.id)


async def test_a_run_is_created_once_per_key(
    api: httpx.AsyncClient, peers: FakePeers, tiny_model: Path, tmp_path: Path, campaign_id: UUID
) -> None:
    start, snapshot = peers.add_base(campaign_id, tiny_model), peers.add_snapshot(campaign_id, tmp_path, [{"a": 1}])
    wanted = run_in(campaign_id, start_policy_id=start.id, snapshot_id=snapshot.id)
    body = wanted.model_dump(mode="json")
    first = await api.post("/v1/runs", json=body)
    peers.policies.clear()  # what is stored is not held against the present
    again = await api.post("/v1/runs", json=body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert (first.json()["state"], first.json()["steps"]) == ("queued", 10)
    other = await api.post("/v1/runs", json=body | {"seed": 7})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "run_conflict")
    listed = await api.get("/v1/runs", params={"campaign": str(campaign_id), "state": "queued"})
    assert [item["id"] for item in listed.json()["items"]] == [first.json()["id"]]
    assert (await api.get(f"/v1/runs/{uuid4()}")).status_code == 404
    assert (await api.get("/health/ready")).status_code == 200


async def test_a_run_from_nowhere_is_refused_and_not_stored(
    api: httpx.AsyncClient, peers: FakePeers, tiny_model: Path, campaign_id: UUID
) -> None:
    body = run_in(campaign_id).model_dump(mode="json")
    refused = await api.post("/v1/runs", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "not_found")
    start = peers.add_base(campaign_id, tiny_model)
    refused = await api.post("/v1/runs", json=body | {"start_policy_id": str(start.id)})
    assert "no snapshot" in refused.json()["error"]["message"]
    assert (await api.get("/v1/runs", params={"campaign": str(campaign_id)})).json()["items"] == []


async def test_a_run_is_leased_by_one_worker_at_a_time(database: Database, campaign_id: UUID) -> None:
    run = await create(database, campaign_id)
    fences = await asyncio.gather(*(claim(database, run.id) for _ in range(4)))
    assert sorted(fence for fence in fences if fence is not None) == [1]
    assert (await read(database, run.id)).state is RunState.RUNNING
    await expire_lease(database, run.id)
    assert (await read(database, run.id)).state is RunState.QUEUED
    assert await claim(database, run.id) == 2


async def test_whoever_lost_the_lease_writes_nothing(database: Database, campaign_id: UUID) -> None:
    run = await create(database, campaign_id)
    await claim(database, run.id)
    await expire_lease(database, run.id)
    await claim(database, run.id)
    async with database.transaction() as session:
        assert not await repository.beat(session, run.id, 1, 5, 100, 30.0)
        assert not await repository.record_checkpoint(session, run.id, 1, 5)
        assert not await repository.record_success(session, run.id, 1, uuid4(), 1, 10, 100)
        assert not await repository.record_failure(session, run.id, 1, RunFailure.CRASHED, "")
        assert not await repository.requeue(session, run.id, 1, "", 0.0, blameless=False)
        assert await repository.beat(session, run.id, 2, 6, 200, 30.0)
    after = await read(database, run.id)
    assert (after.state, after.step, after.tokens) == (RunState.RUNNING, 6, 200)


async def test_a_trainer_ends_when_its_run_is_cancelled(
    api: httpx.AsyncClient, database: Database, settings: TrainingSettings, campaign_id: UUID
) -> None:
    run = await create(database, campaign_id)
    fence = await claim(database, run.id)
    assert fence is not None
    lost = threading.Event()
    with RunLease(settings, run.id, fence, lost=lost.set) as lease:
        lease.report(3, 40)
        lease.log(3, {"loss": 0.5, "grad_norm": float("nan")})
        while (await read(database, run.id)).step != 3:
            await asyncio.sleep(0.05)
        assert not lost.is_set()
        assert (await api.post(f"/v1/runs/{run.id}/cancel")).json()["state"] == "cancelled"
        assert await asyncio.to_thread(lost.wait, 30)
    metrics = (await api.get(f"/v1/runs/{run.id}/metrics")).json()
    assert [(point["step"], point["values"]) for point in metrics] == [(3, {"loss": 0.5})]
    assert (await api.post(f"/v1/runs/{run.id}/cancel")).status_code == 200
    assert await claim(database, run.id) is None


async def test_only_the_trainer_that_holds_the_lease_puts_a_checkpoint_in_place(
    database: Database, settings: TrainingSettings, campaign_id: UUID
) -> None:
    """The old trainer was silent for a whole lease; a newer one has the run when the old one finishes its checkpoint."""
    run = await create(database, campaign_id)
    fence = await claim(database, run.id)
    assert fence is not None
    slow = settings.model_copy(update={"training_heartbeat_s": 600.0})
    lost, committed = threading.Event(), []
    with RunLease(slow, run.id, fence, lost=lost.set) as old:
        await asyncio.to_thread(old.while_held, lambda: committed.append(3), 3)
        assert not lost.is_set()
        await expire_lease(database, run.id)
        newer = await claim(database, run.id)
        await asyncio.to_thread(old.while_held, lambda: committed.append(6), 6)
        assert lost.is_set()
    assert (fence, newer, committed) == (1, 2, [3])
    assert await checkpoint_step(database, run.id) == 3


async def test_nobody_takes_or_ends_a_run_while_its_checkpoint_is_put_in_place(
    database: Database, settings: TrainingSettings, campaign_id: UUID
) -> None:
    run = await create(database, campaign_id)
    fence = await claim(database, run.id)
    assert fence is not None
    begun, go_on = threading.Event(), threading.Event()

    def commit() -> None:
        begun.set()
        go_on.wait()

    with RunLease(settings, run.id, fence, lost=lambda: pytest.fail("the lease was lost")) as lease:
        committing = asyncio.create_task(asyncio.to_thread(lease.while_held, commit, 3))
        await asyncio.to_thread(begun.wait)
        assert await claim(database, run.id) is None
        go_on.set()
        await committing
    assert await checkpoint_step(database, run.id) == 3


async def test_a_checkpoint_that_cannot_be_put_in_place_is_not_recorded(
    database: Database, settings: TrainingSettings, campaign_id: UUID
) -> None:
    run = await create(database, campaign_id)
    fence = await claim(database, run.id)
    assert fence is not None

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with RunLease(settings, run.id, fence) as lease, pytest.raises(OSError, match="No space left"):
        await asyncio.to_thread(lease.while_held, full, 3)
    assert await checkpoint_step(database, run.id) is None


NAMED = """
import json, sys
json.dump({"reason": "not_a_number", "sentence": "The loss of step 3 is nan."}, open(sys.argv[1], "w"))
sys.exit(70)
"""
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
CRASHED = "raise SystemExit(1)"


async def test_a_named_failure_ends_the_run(database: Database, settings: TrainingSettings, campaign_id: UUID) -> None:
    run = await attempt(database, settings, await create(database, campaign_id), NAMED)
    assert (run.state, run.failure) == (RunState.FAILED, RunFailure.NOT_A_NUMBER)
    assert run.message == "The loss of step 3 is nan."


@pytest.mark.parametrize(("source", "hint"), [(KILLED, "when memory runs out"), (CRASHED, "exit code 1")])
async def test_a_trainer_that_dies_is_tried_again_a_few_times(
    database: Database, settings: TrainingSettings, campaign_id: UUID, source: str, hint: str
) -> None:
    run = await attempt(database, settings, await create(database, campaign_id), source)
    assert (run.state, run.attempts) == (RunState.QUEUED, 1)
    run = await attempt(database, settings, run, source)
    assert (run.state, run.failure, run.attempts) == (RunState.FAILED, RunFailure.TOO_MANY_ATTEMPTS, 2)
    assert hint in run.message


DISK_FULL = """
import json, sys
json.dump({"reason": "disk_full", "sentence": "The disk is full."}, open(sys.argv[1], "w"))
sys.exit(70)
"""


async def test_a_full_disk_is_waited_for(database: Database, settings: TrainingSettings, campaign_id: UUID) -> None:
    run = await attempt(database, settings, await create(database, campaign_id), DISK_FULL)
    assert (run.state, run.failure, run.message) == (RunState.QUEUED, RunFailure.DISK_FULL, "The disk is full.")
    assert await claim(database, run.id) is None, "it is left alone for a while"


async def test_a_full_disk_ends_a_run_later_than_a_crash_does(
    database: Database, settings: TrainingSettings, campaign_id: UUID
) -> None:
    patient = settings.model_copy(update={"training_disk_full_attempts": 4, "training_disk_full_backoff_s": 0.0})
    run = await create(database, campaign_id)
    for _ in range(3):
        run = await attempt(database, patient, run, DISK_FULL)
        assert (run.state, run.failure) == (RunState.QUEUED, RunFailure.DISK_FULL)
    run = await attempt(database, patient, run, DISK_FULL)
    assert (run.state, run.failure, run.attempts) == (RunState.FAILED, RunFailure.DISK_FULL, 4)
    assert run.message.startswith("4 attempts in a row")


async def test_a_new_checkpoint_ends_the_talk_of_the_last_attempt(
    database: Database, settings: TrainingSettings, campaign_id: UUID
) -> None:
    run = await attempt(database, settings, await create(database, campaign_id), CRASHED)
    assert (run.state, run.failure) == (RunState.QUEUED, RunFailure.CRASHED)
    fence = await claim(database, run.id)
    assert fence is not None
    assert (await read(database, run.id)).failure is RunFailure.CRASHED
    async with database.transaction() as session:
        await repository.record_checkpoint(session, run.id, fence, 3)
    after = await read(database, run.id)
    assert (after.failure, after.message) == (None, "")


async def test_a_checkpoint_makes_the_attempts_start_over(
    database: Database, settings: TrainingSettings, campaign_id: UUID
) -> None:
    run = await create(database, campaign_id)
    for _ in range(settings.training_attempts + 1):
        fence = await claim(database, run.id)
        assert fence is not None
        async with database.transaction() as session:
            assert await repository.record_checkpoint(session, run.id, fence, 3)
        await expire_lease(database, run.id)
    run = await attempt(database, settings, run, CRASHED)
    assert run.state is RunState.QUEUED


async def test_a_run_whose_workers_die_with_their_trainers_fails_in_the_end(
    database: Database, settings: TrainingSettings, campaign_id: UUID
) -> None:
    run = await create(database, campaign_id)
    for _ in range(settings.training_attempts):
        await claim(database, run.id)
        await expire_lease(database, run.id)
    run = await attempt(database, settings, run, "raise AssertionError")
    assert (run.state, run.failure) == (RunState.FAILED, RunFailure.TOO_MANY_ATTEMPTS)


async def test_a_micro_batch_that_never_ends_is_noticed_and_waiting_is_not(
    database: Database, settings: TrainingSettings, campaign_id: UUID
) -> None:
    run = await create(database, campaign_id)
    fence = await claim(database, run.id)
    assert fence is not None
    impatient = settings.model_copy(update={"training_step_timeout_s": 0.1})
    hung = threading.Event()
    with RunLease(impatient, run.id, fence, hung=hung.set) as lease:
        lease.work_begins()
        lease.work_pauses()
        for step in range(3):  # as many heartbeats after the pause
            lease.report(step, 0)
            await asyncio.to_thread(lease.wait, lease._beat())
            lease._check_progress()
        assert not hung.is_set()
        lease.work_begins()
        assert await asyncio.to_thread(hung.wait, 30)


async def test_a_hung_trainer_is_tried_again_and_fails_with_no_progress_in_the_end(
    database: Database, settings: TrainingSettings, campaign_id: UUID
) -> None:
    run = await attempt(database, settings, await create(database, campaign_id), "raise SystemExit(76)")
    assert (run.state, run.attempts) == (RunState.QUEUED, 1)
    assert "HEADWATER_TRAINING_STEP_TIMEOUT_S" in run.message
    run = await attempt(database, settings, run, "raise SystemExit(76)")
    assert (run.state, run.failure) == (RunState.FAILED, RunFailure.NO_PROGRESS)
    assert "HEADWATER_TRAINING_STEP_TIMEOUT_S" in run.message


async def test_a_trainer_that_hangs_with_its_heartbeat_is_ended_by_the_worker(
    database: Database, settings: TrainingSettings, campaign_id: UUID
) -> None:
    run = await create(database, campaign_id)
    brief = settings.model_copy(update={"training_lease_s": 0.5})
    run = await attempt(database, brief, run, "import time; time.sleep(600)")
    assert (run.state, run.attempts) == (RunState.QUEUED, 1)
    assert "silent for a whole lease" in run.message


async def test_a_running_run_says_what_it_waits_for(
    database: Database, settings: TrainingSettings, campaign_id: UUID
) -> None:
    run = await attempt(database, settings, await create(database, campaign_id), CRASHED)
    fence = await claim(database, run.id)
    assert fence is not None
    with RunLease(settings, run.id, fence) as lease:
        lease.say("")
        await asyncio.to_thread(lease.wait, lease._beat())
        assert (await read(database, run.id)).failure is RunFailure.CRASHED
        lease.say("Step 5 waits for groups: 3 of 16 are there.")
        while (now := await read(database, run.id)).message != "Step 5 waits for groups: 3 of 16 are there.":
            await asyncio.sleep(0.05)
        assert (now.state, now.failure) == (RunState.RUNNING, None)
        lease.say("")
        while (await read(database, run.id)).message:
            await asyncio.sleep(0.05)


async def test_whoever_takes_a_run_over_says_why(database: Database, campaign_id: UUID) -> None:
    run = await create(database, campaign_id)
    await claim(database, run.id)
    assert (await read(database, run.id)).message == ""
    await expire_lease(database, run.id)
    await claim(database, run.id)
    assert "Attempt 1 on test was silent for a whole lease" in (await read(database, run.id)).message


async def test_a_stopping_worker_gives_its_run_back_at_once_and_ends_the_trainer(
    database: Database, settings: TrainingSettings, campaign_id: UUID, tmp_path: Path
) -> None:
    run = await create(database, campaign_id)
    stopping, started = threading.Event(), tmp_path / "started"
    sleeper = program(f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(600)")
    attempted = asyncio.create_task(attempt_run(run.id, settings, "test", stopping, sleeper))
    while not await asyncio.to_thread(started.exists):
        await asyncio.sleep(0.02)
    stopping.set()
    await attempted
    assert (await read(database, run.id)).state is RunState.QUEUED
    assert await claim(database, run.id) == 2


async def test_a_second_message_does_nothing(
    database: Database, settings: TrainingSettings, campaign_id: UUID, tmp_path: Path
) -> None:
    run = await create(database, campaign_id)
    await claim(database, run.id)
    trace = tmp_path / "trace"
    await attempt(database, settings, run, f"import pathlib; pathlib.Path({str(trace)!r}).touch()")
    assert not await asyncio.to_thread(trace.exists)
    assert (await read(database, run.id)).attempts == 1


async def test_what_a_running_run_logged_last_is_in_prometheus(
    api: httpx.AsyncClient, database: Database, campaign_id: UUID
) -> None:
    run = await create(database, campaign_id)
    points = [RunMetric(step=step, values={"loss": 1.0 / step}, at=datetime.now(UTC)) for step in (1, 4)]
    async with database.transaction() as session:
        await repository.claim_run(session, run.id, "test", 30.0)
        await repository.upsert_metrics(session, run.id, points)
        await repository.beat(session, run.id, 1, 4, 100, 30.0)
    await gauges.refresh(database)
    labels = f'policy="sft-0",run="{run.id}"'
    lines = (await api.get("/metrics")).text.splitlines()
    assert f"headwater_training_step{{{labels}}} 4.0" in lines
    assert f'headwater_training_value{{metric="loss",{labels}}} 0.25' in lines
    await api.post(f"/v1/runs/{run.id}/cancel")
    await gauges.refresh(database)
    assert str(run.id) not in (await api.get("/metrics")).text
