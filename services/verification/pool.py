"""The pool of workers: one check at a time each, killed and replaced when late, dead or strained.

Invariants: a check's clock runs while it works, not while it waits; a worker that was killed costs nobody but its own check; a check
always ends, in a judgement, or in `verifier_unavailable` while no worker can be started at all.

A check that takes longer than SLICE_S while others wait steps aside once: its process is stopped where it is, another worker takes
its place, and it goes on when nobody waits, or after MAX_ASIDE_S. So a few that hang don't hold up the many that are quick.
"""

import asyncio
import dataclasses
import json
import logging
import time
from collections import deque
from collections.abc import Coroutine, Sequence

from prometheus_client import Counter

from services.verification.kinds.judgement import Judgement, unscored
from services.verification.processes import Parent, Worker, WorkerDiedError
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import UnscoredReason, VerdictOutcome
from shared.errors import UnavailableError

log = logging.getLogger(__name__)
MAX_RESTART_PAUSE_S = 30.0
FRESH_S = 10.0
SLICE_S = 0.1
MAX_ASIDE = 32
MAX_ASIDE_S = 60.0
_replaced = Counter("headwater_verification_workers_replaced", "Worker processes replaced", ["reason"])
_aside = Counter("headwater_verification_checks_aside", "Checks that stepped aside for those that waited")
Turn = asyncio.Future[Worker]


class WorkerPool:
    """`size` warm workers; `command` starts their parent. `deadline_s` of work is what one check may take."""

    def __init__(self, command: Sequence[str], size: int, deadline_s: float) -> None:
        self._command = tuple(command)
        self._size = size
        self._deadline_s = deadline_s
        self._parent: Parent | None = None
        self._starting = asyncio.Lock()
        self._workers: set[Worker] = set()
        self._idle: deque[Worker] = deque()
        self._waiting: deque[Turn] = deque()
        # Workers that stepped aside, each with the one that rests meanwhile, if it goes on already; and their queue.
        self._aside: dict[Worker, Worker | None] = {}
        self._waiting_aside: deque[Turn] = deque()
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
        for worker in self._workers:
            worker.kill()
        if self._parent is not None:
            await self._parent.kill()
        self._workers.clear()
        self._idle.clear()

    def process_ids(self) -> tuple[int, ...]:
        """The processes of the living workers."""
        return tuple(worker.pid for worker in self._workers if worker.alive)

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
        check = json.dumps({"kind": kind, "reference": reference, "answer": answer}).encode() + b"\n"
        for _ in range(2):
            worker = await self._acquire(self._waiting)
            leaving = "cancelled"
            try:
                line, worked_s = await self._ask(worker, check)
                reply = json.loads(line)
                leaving = "memory" if reply["leaving"] else ""
                self._answered_at = time.monotonic()
            except TimeoutError:
                leaving = "timeout"
                return dataclasses.replace(unscored(UnscoredReason.TIMEOUT), milliseconds=1000 * self._deadline_s)
            except WorkerDiedError:
                leaving = "crash"
                continue
            finally:
                self._give_back(worker, leaving)
            reason = reply["reason"] and UnscoredReason(reply["reason"])
            return Judgement(VerdictOutcome(reply["outcome"]), reason, 1000 * worked_s)
        return unscored(UnscoredReason.VERIFIER_CRASHED)

    async def _ask(self, worker: Worker, check: bytes) -> tuple[bytes, float]:
        """The reply, and the seconds of work. Raises: TimeoutError or WorkerDiedError; the worker is of no use after either."""
        reply = asyncio.ensure_future(worker.ask(check))
        worked_s = 0.0
        try:
            while not reply.done() and worked_s < self._deadline_s:
                if worked_s and worker not in self._aside and self._waiting and len(self._aside) < MAX_ASIDE:
                    await self._step_aside(worker)
                rest_s = self._deadline_s - worked_s
                started = time.monotonic()
                await asyncio.wait((reply,), timeout=rest_s if worker in self._aside else min(SLICE_S, rest_s))
                worked_s += time.monotonic() - started
            if not reply.done():
                raise TimeoutError
            return reply.result(), worked_s
        finally:
            reply.cancel()

    async def _step_aside(self, worker: Worker) -> None:
        """Returns when it is this one's turn again."""
        worker.pause()
        self._aside[worker] = None
        _aside.inc()
        self._spawn(self._add_worker())
        try:
            async with asyncio.timeout(MAX_ASIDE_S):
                self._aside[worker] = await self._acquire(self._waiting_aside)
        except TimeoutError:
            self._aside[worker] = await self._acquire(self._waiting)
        worker.resume()

    async def _acquire(self, queue: deque[Turn]) -> Worker:
        while self._idle:
            worker = self._idle.popleft()
            if worker.alive:
                return worker
            self._replace(worker, "crash")
        if self._broken and not self._workers:
            raise UnavailableError("verifier_unavailable", f"No verification worker can be started: {self._broken}.")
        turn: Turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._release(turn.result())
            raise

    def _give_back(self, worker: Worker, leaving: str) -> None:
        if worker in self._aside:  # its place is another's
            resting = self._aside.pop(worker)
            self._workers.discard(worker)
            worker.kill()
            if resting is not None:
                self._give_back(resting, "")
        elif leaving or not worker.alive:
            self._replace(worker, leaving or "crash")
        else:
            self._release(worker)

    def _release(self, worker: Worker) -> None:
        for queue in (self._waiting, self._waiting_aside):
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(worker)
                    return
        self._idle.append(worker)

    def _replace(self, worker: Worker, reason: str) -> None:
        _replaced.labels(reason).inc()
        log.warning("verification worker %d is replaced: %s", worker.pid, reason)
        self._workers.discard(worker)
        worker.kill()
        self._spawn(self._add_worker())

    async def _add_worker(self) -> None:
        pause_s = 0.5
        while True:
            try:
                worker = await self._fork()
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

    async def _fork(self) -> Worker:
        async with self._starting:
            if self._parent is None or not self._parent.alive:
                self._parent = await Parent.start(self._command)
            parent = self._parent
        try:
            return await parent.fork()
        except (TimeoutError, WorkerDiedError):
            await parent.kill()  # the next try starts another
            raise

    def _refuse_all(self, reason: str) -> None:
        log.error("a verification worker did not start: %s", reason)
        self._broken = reason
        turns = [*self._waiting, *self._waiting_aside] if not self._workers else []
        for turn in turns:
            if not turn.done():
                turn.set_exception(
                    UnavailableError("verifier_unavailable", f"No verification worker can be started: {reason}.")
                )

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
