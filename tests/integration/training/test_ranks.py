"""Runs of two processes through the real launcher (gloo, on the CPU): the same steps as one takes, and one fate."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from safetensors.torch import load_file

from services.training import repository
from services.training.attempt import TrainerCommand, attempt_run
from services.training.settings import TrainingSettings
from shared.contracts.recipe import DistributedRecipe, RewardLevel
from shared.contracts.runs import RunFailure, RunState
from shared.db import Database
from tests.integration.training.fakes import FakePeers
from tests.integration.training.test_runs import checkpoint_step
from tests.integration.training.test_trainer import at_step_5, attempt, create, logged, read, rl_run, rollouts, sft_run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
TWO = DistributedRecipe(processes=2)
CLOCK = ("wait_s", "step_time")
KILL_THE_SECOND = 'if os.environ["RANK"] == "1": os.kill(os.getpid(), signal.SIGKILL)'


@pytest.mark.parametrize("fsdp", [False, True])
async def test_an_sft_run_of_two_processes_takes_the_steps_of_one(
    database: Database,
    settings: TrainingSettings,
    peers: FakePeers,
    tiny_model: Path,
    tmp_path: Path,
    campaign_id: UUID,
    fsdp: bool,
) -> None:
    """The one whose weights are split has a process killed in its sixth step, and goes on from its checkpoint."""
    recipe: dict[str, Any] = {"kl_beta": 0.05, "weight_decay": 0.01}
    alone = await create(database, sft_run(campaign_id, peers, tiny_model, tmp_path, "alone", **recipe))
    await attempt(alone, database, settings)
    recipe |= {"distributed": DistributedRecipe(processes=2, fsdp=fsdp), "micro_batch_size": 2}
    two = await create(database, sft_run(campaign_id, peers, tiny_model, tmp_path, "two", **recipe))
    if fsdp:
        await attempt_run(two.id, settings, "test", threading.Event(), sharding(at_step_5(KILL_THE_SECOND)))
        killed = await read(database, two.id)
        assert (killed.state, killed.failure) == (RunState.QUEUED, RunFailure.CRASHED), killed.message
        assert "Process 2 of 2 ended, and the others with it. The trainer was killed (signal 9)" in killed.message
        assert await checkpoint_step(database, two.id) == 3
        await attempt_run(two.id, settings, "test", threading.Event(), sharding(at_step_5("pass")))
    else:
        await attempt_run(two.id, settings, "test", threading.Event())
    done, expected = await read(database, two.id), await read(database, alone.id)
    assert (done.state, done.tokens) == (RunState.SUCCEEDED, expected.tokens), done.message
    of_one, of_two = await logged(database, alone.id), await logged(database, two.id)
    assert of_one.keys() == of_two.keys()
    for step, values in of_one.items():
        for name in ("loss", "grad_norm", "kl", "learning_rate"):
            assert of_two[step][name] == pytest.approx(values[name], abs=1e-4), (step, name)
    assert done.policy_id is not None
    assert expected.policy_id is not None
    one, other = (
        load_file(f"{peers.policies[of].uri}/model.safetensors") for of in (expected.policy_id, done.policy_id)
    )
    assert one.keys() == other.keys()
    assert max(float((one[name] - other[name]).abs().mean()) for name in one) < 1e-4


def sharding(command: TrainerCommand) -> TrainerCommand:
    """A trainer in which accelerate takes processes on the CPU for such with a GPU, to which it limits FSDP."""

    def sharded(run_id: UUID, fence: int, result: Path) -> Sequence[str]:
        python, option, source, *arguments = command(run_id, fence, result)
        return [python, option, ON_THE_CPU + source, *arguments]

    return sharded


ON_THE_CPU = """
import torch
from accelerate.state import DistributedType, PartialState
PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)
PartialState.set_device = lambda state: setattr(state, "device", torch.device("cpu"))
"""


async def test_an_rl_run_of_two_processes_takes_the_steps_of_one_and_pauses_as_one(
    database: Database, settings: TrainingSettings, peers: FakePeers, tiny_model: Path
) -> None:
    groups = await asyncio.to_thread(rollouts, tiny_model, 4, 4)
    points = []
    for distributed, micro_batch_size in ((DistributedRecipe(), 0), (TWO, 2)):
        peers.waiting, peers.leased, peers.acknowledged = list(groups), {}, []
        recipe = {"level": RewardLevel.PROCESS, "distributed": distributed, "micro_batch_size": micro_batch_size}
        wanted = rl_run(uuid4(), peers, tiny_model, learning_rate=1e-2, publish_every_steps=4, **recipe)
        run = await create(database, wanted)
        is_two = distributed is TWO
        started: Coroutine[Any, Any, object] = (
            attempt_run(run.id, settings, "test", threading.Event()) if is_two else attempt(run, database, settings)
        )
        attempted = asyncio.create_task(started)
        while "waits for groups: 0 of 2" not in (await read(database, run.id)).message:
            assert not attempted.done()
            await asyncio.sleep(0.2)
        async with database.transaction() as session:
            await repository.pause(session, run.id)
        await attempted
        paused = await read(database, run.id)
        assert (paused.state, paused.step, paused.failure) == (RunState.PAUSED, 2, None), paused.message
        assert await checkpoint_step(database, run.id) == 2
        assert peers.acknowledged == [0, 1]
        logged_points = await logged(database, run.id)
        points.append({step: values | dict.fromkeys(CLOCK, 0.0) for step, values in logged_points.items()})
    of_one, of_two = points
    assert of_one[2]["kl"] > 0
    for step, values in of_one.items():
        assert of_two[step] == pytest.approx(values, abs=1e-4), step


def test_processes_die_with_the_worker_however_that_ends(tmp_path: Path) -> None:
    """The worker is killed; the launcher cannot say goodbye, nor can anybody tell the processes."""
    rank = (
        "import os, pathlib, sys, time; from services.training.processes import die_with; die_with(int(sys.argv[-1])); "
        "pathlib.Path(sys.argv[1], str(os.getpid())).touch(); time.sleep(600)"
    )
    worker = (
        "import pathlib, subprocess, sys; from services.training.attempt import launched; "
        "sys.exit(subprocess.call(launched([sys.executable, '-c', *sys.argv[1:]], 2, pathlib.Path('result.json'))))"
    )
    started = subprocess.Popen([sys.executable, "-c", worker, rank, str(tmp_path)])
    while len(found := os.listdir(tmp_path)) < 2:  # noqa: PTH208
        assert started.poll() is None
        time.sleep(0.05)
    started.send_signal(signal.SIGKILL)
    started.wait()
    while any(lives(int(pid)) for pid in found):
        time.sleep(0.05)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
