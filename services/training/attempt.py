"""One attempt of a run, seen from the worker: lease it, start the trainer as a process of its own, record how it ended.

The trainer, not this module, keeps the lease alive; it dies with the worker, and is ended by it when the lease is over
and the trainer did not notice. Running twice is harmless: the second caller finds the lease held and does nothing.
"""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from services.training import repository
from services.training.failures import EXIT_LOST, Failure, give_up, is_retried, judge_exit
from services.training.repository import RunRow
from services.training.settings import TrainingSettings
from shared.contracts.runs import RunFailure, RunIn
from shared.db import Database

log = logging.getLogger(__name__)
POLL_S = 0.2
STOP_DEADLINE_S = 5.0
MAX_BACKOFF_S = 60.0
_SILENT = "The trainer was silent for a whole lease: it hung, or could not reach the database."


class Stopping(Protocol):
    """Whether the worker is asked to stop: a threading or multiprocessing event."""

    def is_set(self) -> bool:
        """Whether it is."""


# command(run_id, fence, result file): tests start something smaller than a trainer.
TrainerCommand = Callable[[UUID, int, Path], Sequence[str]]


def trainer_command(run_id: UUID, fence: int, result: Path) -> Sequence[str]:
    """The trainer of one attempt; it ends when the process that started it does."""
    module = [sys.executable, "-m", "services.training.execute", str(run_id)]
    return [*module, "--fence", str(fence), "--result", str(result), "--parent", str(os.getpid())]


def launched(command: Sequence[str], processes: int, result: Path) -> Sequence[str]:
    """The same trainer in several processes: whatever ends one of them ends all, and they end with the launcher."""
    if processes == 1:
        return command
    launcher = [
        sys.executable,
        "-m",
        "services.training.launch",
        "--processes",
        str(processes),
        "--result",
        str(result),
    ]
    return [*launcher, "--parent", str(os.getpid()), "--", *command]


def trainer_environment(threads: int) -> dict[str, str]:
    """OpenMP threads that sleep instead of spin (busy cores stall each other), and no look at any hub."""
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }


@dataclass(frozen=True)
class Attempt:
    """What became of a hint: `campaign_id` is set when the run ended by it."""

    executed: bool
    campaign_id: UUID | None = None


async def attempt_run(
    run_id: UUID,
    settings: TrainingSettings,
    worker: str,
    stopping: Stopping,
    command: TrainerCommand = trainer_command,
) -> Attempt:
    """Lease and execute a run until its trainer ends or `stopping` is set; nothing when there is nothing to lease."""
    database = Database(settings.database_url, pool_size=1)
    try:
        async with database.transaction() as session:
            row = await repository.claim_run(session, run_id, worker, settings.training_lease_s)
            if row is not None and row.stalled_attempts > _allowed_attempts(settings, row.failure):
                return await _refuse(session, row)
            processes = 1 if row is None else _processes(row)
            if row is not None and processes > 1:
                launch_s = settings.training_launch_s
                await repository.beat(session, row.id, row.fence, row.step, row.tokens, launch_s)
        if row is None:
            return Attempt(executed=False)
        log.info("run %s: attempt %d, fence %d", run_id, row.attempts, row.fence)
        with tempfile.TemporaryDirectory(prefix="headwater-run-") as scratch:
            result = Path(scratch) / "result.json"
            trainer = launched(command(run_id, row.fence, result), processes, result)
            exit_code = await _execute(trainer, settings, stopping, lambda: _is_held(database, row))
            left = Failure.read(result)
        return await _record(database, row, settings, exit_code, left)
    finally:
        await database.close()


def _processes(row: RunRow) -> int:
    recipe = RunIn.model_validate(row.spec).recipe
    return 1 if recipe is None else recipe.distributed.processes


def _allowed_attempts(settings: TrainingSettings, reason: str | None) -> int:
    """How many attempts in a row may reach no new checkpoint, by what ended the last one."""
    return settings.training_disk_full_attempts if reason == RunFailure.DISK_FULL else settings.training_attempts


def _delay_s(settings: TrainingSettings, reason: RunFailure, stalled: int) -> float:
    """How long to leave the run alone: people free a disk, most else passes by itself."""
    if reason is RunFailure.DISK_FULL:
        return settings.training_disk_full_backoff_s
    return min(settings.training_backoff_s * 2.0 ** max(stalled - 1, 0), MAX_BACKOFF_S)


async def _refuse(session: AsyncSession, row: RunRow) -> Attempt:
    last = Failure(
        RunFailure(row.failure or RunFailure.CRASHED), row.message or "the trainer and its worker died together."
    )
    failure = give_up(last, row.stalled_attempts - 1)
    await repository.record_failure(session, row.id, row.fence, failure.reason, failure.sentence)
    return Attempt(executed=False, campaign_id=row.campaign_id)


async def _is_held(database: Database, row: RunRow) -> bool:
    """Whether the trainer of this attempt keeps its lease; a database that does not answer says nothing against it."""
    try:
        async with database.transaction() as session:
            now = await repository.run_by_id(session, row.id)
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        log.warning("run %s: could not look at the lease (%s)", row.id, error)
        return True
    return now is not None and now.fence == row.fence and now.reads in repository.HELD


async def _execute(
    command: Sequence[str], settings: TrainingSettings, stopping: Stopping, is_held: Callable[[], Awaitable[bool]]
) -> int | None:
    """The exit code of the trainer; None when it was stopped because the worker stops, EXIT_LOST when its lease is over."""
    environment = trainer_environment(settings.training_threads)
    process = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: ASYNC220
    try:
        looked_at = time.monotonic()
        while process.poll() is None and not stopping.is_set():
            await asyncio.sleep(POLL_S)
            if time.monotonic() - looked_at > settings.training_lease_s:
                looked_at = time.monotonic()
                if not await is_held() and not await _ends(process, settings.training_lease_s):
                    return EXIT_LOST
        return None if process.returncode is None else process.returncode
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def _ends(process: subprocess.Popen[bytes], deadline_s: float) -> bool:
    """Whether it ends by itself: a run whose end is written has no lease any more, and its trainer is about to go."""
    since = time.monotonic()
    while process.poll() is None and time.monotonic() - since < deadline_s:
        await asyncio.sleep(POLL_S)
    return process.poll() is not None


async def _record(
    database: Database, row: RunRow, settings: TrainingSettings, exit_code: int | None, left: Failure | None
) -> Attempt:
    if exit_code == 0:
        return Attempt(executed=True, campaign_id=row.campaign_id)
    async with database.transaction() as session:
        if exit_code == EXIT_LOST:
            ours = await repository.requeue(session, row.id, row.fence, _SILENT, 0.0, blameless=False)
            why = _SILENT if ours else "Another worker has the run, or it was ended."
            log.warning("run %s: the trainer of fence %d lost its lease. %s", row.id, row.fence, why)
            return Attempt(executed=True)
        if exit_code is None:
            await repository.requeue(session, row.id, row.fence, "The worker stopped.", 0.0, blameless=True)
            return Attempt(executed=True)
        failure = judge_exit(exit_code, left)
        now = await repository.run_by_id(session, row.id)
        stalled = 0 if now is None else now.stalled_attempts
        log.warning("run %s: %s", row.id, failure.sentence)
        retried = is_retried(exit_code, failure)
        if retried and stalled < _allowed_attempts(settings, failure.reason):
            delay_s = _delay_s(settings, failure.reason, stalled)
            await repository.requeue(
                session, row.id, row.fence, failure.sentence, delay_s, blameless=False, failure=failure.reason
            )
            return Attempt(executed=True)
        if retried:
            failure = give_up(failure, stalled)
        await repository.record_failure(session, row.id, row.fence, failure.reason, failure.sentence)
        return Attempt(executed=True, campaign_id=row.campaign_id)


async def waiting_runs(settings: TrainingSettings) -> Sequence[UUID]:
    """Runs that wait for a worker."""
    database = Database(settings.database_url, pool_size=1)
    try:
        async with database.transaction() as session:
            return await repository.open_run_ids(session)
    finally:
        await database.close()
