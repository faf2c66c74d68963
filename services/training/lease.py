"""The trainer's hold on its run: a thread that heartbeats the lease and makes every fenced write.

The thread has its own asyncio loop with the database and the HTTP clients; the training loop, which is synchronous,
hands coroutines to it and waits. Whoever loses the lease (another worker took it, the run was cancelled, the database
was silent for a whole lease) ends the process at once: what it would still do is not wanted any more. So does a trainer
that works on one micro-batch for longer than `training_step_timeout_s`: a heartbeat alone is no progress.
"""

import asyncio
import contextlib
import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from math import isfinite
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from services.training import repository
from services.training.client import Peers, open_peers
from services.training.failures import EXIT_HUNG, EXIT_LOST, RunPausedError
from services.training.settings import TrainingSettings
from shared.contracts.runs import RunIn, RunMetric, RunState
from shared.db import Database

T = TypeVar("T")
log = logging.getLogger(__name__)
BEAT_DEADLINE_S = 10.0
# What a database that is down or restarting makes of a statement.
_SILENCES = (SQLAlchemyError, OSError, TimeoutError)
WRITE_RETRY_S = 0.5


def _exit_lost() -> None:
    os._exit(EXIT_LOST)


def _exit_hung() -> None:
    faulthandler.dump_traceback(all_threads=True)
    os._exit(EXIT_HUNG)


class RunLease:
    """A leased run, used as a context manager by its trainer. All methods are called from the training thread.

    Of a trainer's ranks only the first enters it; what the others report and log stays with them.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        run_id: UUID,
        fence: int,
        lost: Callable[[], None] = _exit_lost,
        hung: Callable[[], None] = _exit_hung,
    ) -> None:
        self.settings, self.run_id, self.fence = settings, run_id, fence
        self.step, self.tokens = 0, 0
        self.peers: Peers
        self._lost, self._hung = lost, hung
        self._working_since: float | None = None
        self._lock = threading.Lock()
        self._metrics: list[RunMetric] = []
        self._message: str | None = None
        self._pause_is_wanted = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lease", daemon=True)
        self._held_until = time.monotonic() + settings.training_lease_s
        self._resources = AsyncExitStack()
        self._one_beat = asyncio.Lock()
        self._beating: asyncio.Task[None] | None = None

    def __enter__(self) -> "RunLease":
        self._thread.start()
        self.wait(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self.wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the lease's loop and wait; it has deadlines of its own. Raises: RuntimeError without a loop."""
        if not self._thread.is_alive():
            work.close()
            raise RuntimeError("the lease was not entered here: only the first rank asks and writes")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def spec(self) -> RunIn:
        """What to train."""
        return self.wait(self._spec())

    def open_starts(self) -> set[UUID]:
        """The policies that runs which have not ended start from."""
        return self.wait(self._open_starts())

    def work_begins(self) -> None:
        """The next micro-batch: from here on it is watched, until the next one or `work_pauses`."""
        self._working_since = time.monotonic()

    def work_pauses(self) -> None:
        """What comes (waiting for a batch, a checkpoint, publishing) has ends of its own."""
        self._working_since = None

    def report(self, step: int, tokens: int) -> None:
        """Progress, written with the next heartbeat."""
        self.step, self.tokens = step, tokens

    def check_pause(self) -> None:
        """Between two steps. Raises: RunPausedError when somebody asked for a pause."""
        if self._pause_is_wanted:
            raise RunPausedError

    def say(self, message: str) -> None:
        """What the run is doing when it makes no steps, shown with the next heartbeat; nothing: it goes on."""
        # Whoever never waited leaves what is said of the attempt before.
        if message or self._message:
            self._message = message

    def log(self, step: int, values: dict[str, float]) -> None:
        """One logged point, written with the next heartbeat. What is not a number is left out."""
        finite = {name: float(value) for name, value in values.items() if isfinite(value)}
        with self._lock:
            self._metrics.append(RunMetric(step=step, values=finite, at=datetime.now(UTC)))

    def while_held(self, work: Callable[[], None], checkpoint_step: int | None = None) -> None:
        """Change the run's files by `work` (quick, and harmless when repeated), or not at all when the lease is lost.

        Nobody can take the run over meanwhile. `checkpoint_step`: `work` puts the checkpoint of this step in place, which
        is recorded; the logged points up to it are durable before.
        """
        self.wait(self._while_held(work, checkpoint_step))

    def succeed(self, policy_id: UUID, policy_version: int) -> None:
        """The run is over: last metrics, progress and policy are written."""
        self.wait(
            self._finish(
                lambda session: repository.record_success(
                    session, self.run_id, self.fence, policy_id, policy_version, self.step, self.tokens
                )
            )
        )

    def pause(self) -> None:
        """The trainer ends, its checkpoint is written, and nobody takes the run until it is resumed."""
        self.wait(
            self._finish(
                lambda session: repository.record_pause(session, self.run_id, self.fence, self.step, self.tokens)
            )
        )

    async def _open(self) -> None:
        self._database = Database(self.settings.database_url, pool_size=2)
        self._resources.push_async_callback(self._database.close)
        self.peers = await self._resources.enter_async_context(
            open_peers(self.settings, self.settings.training_peer_deadline_s)
        )
        row = await self._row()
        self.step, self.tokens = row.step, row.tokens
        await self._beat()
        self._beating = asyncio.create_task(self._keep_beating())

    async def _close(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            with contextlib.suppress(*_SILENCES):
                await self._beat()
        await self._resources.aclose()

    async def _row(self) -> repository.RunRow:
        async with self._database.transaction() as session:
            row = await repository.run_by_id(session, self.run_id)
        if row is None:
            raise LookupError(f"there is no run {self.run_id}")
        return row

    async def _spec(self) -> RunIn:
        return RunIn.model_validate((await self._row()).spec)

    async def _open_starts(self) -> set[UUID]:
        async with self._database.transaction() as session:
            return await repository.open_starts(session)

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(self.settings.training_heartbeat_s)
            try:
                await self._beat()
            except _SILENCES as error:
                log.warning("heartbeat of run %s failed: %s", self.run_id, error)
            if time.monotonic() > self._held_until:
                self._lose("the database was silent for a whole lease")
            self._check_progress()

    def _check_progress(self) -> None:
        since, limit_s = self._working_since, self.settings.training_step_timeout_s
        if since is not None and time.monotonic() - since > limit_s:
            log.error("run %s: step %d hangs for %.0f s; the trainer ends", self.run_id, self.step + 1, limit_s)
            self._hung()

    async def _beat(self) -> None:
        """Extend the lease; write progress and logged points in the same transaction."""
        async with asyncio.timeout(BEAT_DEADLINE_S), self._one_beat:
            await self._send_beat()

    async def _send_beat(self) -> None:
        with self._lock:
            metrics, self._metrics = self._metrics, []
        sent_at, lease_s = time.monotonic(), self.settings.training_lease_s
        try:
            async with self._database.transaction() as session:
                state = await repository.beat(
                    session, self.run_id, self.fence, self.step, self.tokens, lease_s, self._message
                )
                if state is not None:
                    await repository.upsert_metrics(session, self.run_id, metrics)
        except BaseException:
            with self._lock:
                self._metrics = metrics + self._metrics
            raise
        if state is None:
            self._lose("another worker has taken the run, or it was ended")
        self._pause_is_wanted = state is RunState.PAUSING
        self._held_until = sent_at + lease_s

    def _lose(self, why: str) -> None:
        log.error("run %s: the lease of fence %d is lost: %s; the trainer ends", self.run_id, self.fence, why)
        self._lost()

    async def _until_written(self, what: str, write: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """A write, repeated while the database is silent (the heartbeat ends that)."""
        while True:
            try:
                return await write()
            except _SILENCES as error:
                log.warning("%s of run %s failed, trying again: %s", what, self.run_id, error)
                await asyncio.sleep(WRITE_RETRY_S)

    async def _while_held(self, work: Callable[[], None], checkpoint_step: int | None) -> None:
        await self._until_written("a heartbeat", self._beat)
        working = await self._until_written("a checkpoint", lambda: self._work_locked(work, checkpoint_step))
        if working is None:
            self._lose("another worker has taken the run, or it was ended")
        else:
            working.result()

    async def _work_locked(
        self, work: Callable[[], None], checkpoint_step: int | None
    ) -> "asyncio.Future[None] | None":
        """`work` while the run's row is locked, its outcome to be asked for; None when the lease was lost before."""
        # The next heartbeat waits: it writes the row that is locked meanwhile.
        async with self._one_beat, self._database.transaction() as session:
            async with asyncio.timeout(BEAT_DEADLINE_S):
                if not await repository.lock_held(session, self.run_id, self.fence):
                    return None
            working = asyncio.ensure_future(asyncio.to_thread(work))
            await asyncio.wait([working])
            if checkpoint_step is not None and working.exception() is None:
                async with asyncio.timeout(BEAT_DEADLINE_S):
                    await repository.record_checkpoint(session, self.run_id, self.fence, checkpoint_step)
        return working

    async def _finish(self, record: Callable[[AsyncSession], Coroutine[Any, Any, bool]]) -> None:
        await self._until_written("a heartbeat", self._beat)
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
        held = await self._until_written("the end", lambda: self._record(record))
        if not held:
            self._lose("another worker has taken the run, or it was ended")

    async def _record(self, record: Callable[[AsyncSession], Coroutine[Any, Any, bool]]) -> bool:
        async with asyncio.timeout(BEAT_DEADLINE_S), self._database.transaction() as session:
            return await record(session)
