"""The pool of worker processes: one check at a time each, killed and replaced when late, dead or strained.

Invariants: a check's clock starts when its work starts; a worker that was killed costs nobody but its own check; a check
always ends, in a judgement, or in `verifier_unavailable` while no worker can be started at all.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import sys
import time
from collections import deque
from collections.abc import Coroutine, Sequence

from prometheus_client import Counter

from services.verification.kinds.judgement import Judgement, unscored
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import UnscoredReason, VerdictOutcome
from shared.errors import UnavailableError

log = logging.getLogger(__name__)
START_DEADLINE_S = 60.0
MAX_RESTART_PAUSE_S = 30.0
FRESH_S = 10.0
_replaced = Counter("headwater_verification_workers_replaced", "Worker processes replaced", ["reason"])


def worker_command(memory_bytes: int) -> tuple[str, ...]:
    """The command of a real worker."""
    return (sys.executable, "-m", "services.verification.worker", str(memory_bytes))


class WorkerDiedError(Exception):
    """The worker process ended without a reply."""


class Worker:
    """One worker process and its two pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, command: Sequence[str]) -> "Worker":
        """Start a process and wait until it is warm. Raises OSError, TimeoutError or WorkerDiedError."""
        pipe = asyncio.subprocess.PIPE
        worker = cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                await worker._line()
        except BaseException:
            await worker.kill()
            raise
        return worker

    @property
    def alive(self) -> bool:
        """Whether the process has not ended, as far as we heard."""
        return self.process.returncode is None

    async def ask(self, question: bytes, deadline_s: float) -> bytes:
        """One check. Raises TimeoutError or WorkerDiedError; the worker must be killed after either."""
        assert self.process.stdin is not None
        async with asyncio.timeout(deadline_s):
            try:
                self.process.stdin.write(question)
                await self.process.stdin.drain()
            except (ConnectionError, RuntimeError) as error:
                raise WorkerDiedError from error
            return await self._line()

    async def _line(self) -> bytes:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line.endswith(b"\n"):
            raise WorkerDiedError
        return line

    async def kill(self) -> None:
        """End the process, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class WorkerPool:
    """`size` warm workers; `command` starts one."""

    def __init__(self, command: Sequence[str], size: int, deadline_s: float) -> None:
        self._command = tuple(command)
        self._size = size
        self._deadline_s = deadline_s
        self._workers: set[Worker] = set()
        self._idle: deque[Worker] = deque()
        self._waiting: deque[asyncio.Future[Worker]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken = ""
        self._answered_at = float("-inf")

    def start(self) -> None:
        """Begin to start the workers; checks wait for the first of them."""
        for _ in range(self._size):
            self._spawn(self._add_worker())

    async def close(self) -> None:
        """End every worker."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.kill() for worker in self._workers))
        self._workers.clear()
        self._idle.clear()

    def process_ids(self) -> tuple[int, ...]:
        """The processes of the living workers."""
        return tuple(worker.process.pid for worker in self._workers if worker.alive)

    async def check(self) -> None:
        """Raise UnavailableError unless a worker answered lately, or answers now."""
        if time.monotonic() - self._answered_at < FRESH_S:
            return
        try:
            async with asyncio.timeout(FRESH_S):
                judgement = await self.judge(QuestionKind.MATH, "x", "x")
        except TimeoutError as error:
            raise UnavailableError("verifier_unavailable", "No verification worker answers.") from error
        if judgement.outcome is not VerdictOutcome.CORRECT:
            raise UnavailableError(
                "verifier_unavailable", f"The verification workers answer {judgement.reason or 'wrong'}."
            )

    async def judge(self, kind: QuestionKind, reference: str, answer: str) -> Judgement:
        """One check by the next free worker; a check whose worker dies is tried once more.

        Raises: UnavailableError while no worker can be started.
        """
        question = json.dumps({"kind": kind, "reference": reference, "answer": answer}).encode() + b"\n"
        for _ in range(2):
            worker = await self._acquire()
            started = time.perf_counter()
            leaving = "cancelled"
            try:
                reply = json.loads(await worker.ask(question, self._deadline_s))
                leaving = "memory" if reply["leaving"] else ""
                self._answered_at = time.monotonic()
            except TimeoutError:
                leaving = "timeout"
                reply = {"outcome": VerdictOutcome.UNSCORED, "reason": UnscoredReason.TIMEOUT}
            except WorkerDiedError:
                leaving = "crash"
                continue
            finally:
                self._give_back(worker, leaving)
            reason = reply["reason"] and UnscoredReason(reply["reason"])
            judgement = Judgement(VerdictOutcome(reply["outcome"]), reason)
            return dataclasses.replace(judgement, milliseconds=(time.perf_counter() - started) * 1000)
        return unscored(UnscoredReason.VERIFIER_CRASHED)

    async def _acquire(self) -> Worker:
        while self._idle:
            worker = self._idle.popleft()
            if worker.alive:
                return worker
            self._replace(worker, "crash")
        if self._broken and not self._workers:
            raise UnavailableError("verifier_unavailable", f"No verification worker can be started: {self._broken}.")
        turn: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._release(turn.result())
            raise

    def _give_back(self, worker: Worker, leaving: str) -> None:
        if leaving or not worker.alive:
            self._replace(worker, leaving or "crash")
        else:
            self._release(worker)

    def _release(self, worker: Worker) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(worker)
                return
        self._idle.append(worker)

    def _replace(self, worker: Worker, reason: str) -> None:
        _replaced.labels(reason).inc()
        log.warning("verification worker %d is replaced: %s", worker.process.pid, reason)
        self._workers.discard(worker)
        self._spawn(self._kill_and_add(worker))

    async def _kill_and_add(self, worker: Worker) -> None:
        await worker.kill()
        await self._add_worker()

    async def _add_worker(self) -> None:
        pause_s = 0.5
        while True:
            try:
                worker = await Worker.start(self._command)
            except (OSError, TimeoutError, WorkerDiedError) as error:
                self._refuse_all(f"{type(error).__name__} {error}".strip())
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, MAX_RESTART_PAUSE_S)
                continue
            self._broken = ""
            self._workers.add(worker)
            self._answered_at = time.monotonic()
            self._release(worker)
            return

    def _refuse_all(self, reason: str) -> None:
        log.error("a verification worker did not start: %s", reason)
        self._broken = reason
        while self._waiting and not self._workers:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(
                    UnavailableError("verifier_unavailable", f"No verification worker can be started: {reason}.")
                )

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
