"""The pool of workers: a bounded number of checks at once, each in a process that is killed when it is late, dead or strained.

Invariants: a check's clock runs while it works, not while it waits; a worker that was killed costs nobody but its own check; a check
always ends, in a judgement, or in `verifier_unavailable` while no worker can be started.

A check that takes longer than its slice while others wait steps aside: its process is stopped where it is, and goes on when it is its
turn again, behind those that stepped aside less often, for ever longer slices. So a few that hang don't hold up the many that are
quick. Who stood aside for MAX_ASIDE_S goes first.
"""

import asyncio
import heapq
import itertools
import json
import logging
import time
from collections import deque
from collections.abc import Sequence

from prometheus_client import Counter

from services.verification.kinds.judgement import Check, Judgement, unscored
from services.verification.processes import Parent, Worker, WorkerDiedError
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import UnscoredReason, VerdictOutcome
from shared.errors import UnavailableError

log = logging.getLogger(__name__)
FRESH_S = 10.0
FIRST_RESTART_PAUSE_S, LAST_RESTART_PAUSE_S = 0.5, 30.0
SLICE_S = 0.15
MAX_ASIDE = 32
MAX_ASIDE_S = 60.0
_replaced = Counter("headwater_verification_workers_replaced", "Worker processes replaced", ["reason"])
_stepped_aside = Counter(
    "headwater_verification_checks_aside", "Times that a check stepped aside for those that waited"
)


class WorkerPool:
    """`size` checks at once; `command` starts the parent of the workers. `deadline_s` of work is what one check may take."""

    def __init__(self, command: Sequence[str], size: int, deadline_s: float) -> None:
        self._command = tuple(command)
        self._size = size
        self._deadline_s = deadline_s
        self._free = size
        self._turns: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap: times aside, order of arrival
        self._arrivals = itertools.count()
        self._aside = 0
        self._parent: Parent | None = None
        self._starting = asyncio.Lock()
        self._restart_pause_s = FIRST_RESTART_PAUSE_S
        self._restart_from = float("-inf")
        self._broken = ""
        self._workers: set[Worker] = set()
        self._idle: deque[Worker] = deque()
        self._first: asyncio.Task[None] | None = None
        self._answered_at = float("-inf")

    def start(self) -> None:
        """Begin to start the workers; checks wait for them."""
        self._first = asyncio.get_running_loop().create_task(self._start_first())

    async def close(self) -> None:
        """End every worker."""
        if self._first is not None:
            self._first.cancel()
            await asyncio.gather(self._first, return_exceptions=True)
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
                judgement = await self.judge(Check(QuestionKind.MATH, "x", "x"))
        except TimeoutError as error:
            raise UnavailableError("verifier_unavailable", "No verification worker answers.") from error
        if judgement.outcome is not VerdictOutcome.CORRECT:
            raise UnavailableError(
                "verifier_unavailable", f"The verification workers answer {judgement.reason or 'wrong'}."
            )

    async def judge(self, check: Check) -> Judgement:
        """One check in its turn; a check whose worker dies is tried once more, by a new one.

        Raises: UnavailableError while no worker can be started.
        """
        line = json.dumps({"kind": check.kind, "reference": check.reference, "answer": check.answer}).encode() + b"\n"
        for worker_of in (self._worker, self._new_worker):
            await self._acquire(0)
            try:
                judgement = await self._try(await worker_of(), line)
            finally:
                self._release()
            if judgement is not None:
                return judgement
        return unscored(UnscoredReason.VERIFIER_CRASHED)

    async def _try(self, worker: Worker, check: bytes) -> Judgement | None:
        """The judgement; None when the worker died."""
        leaving = "cancelled"
        try:
            line, worked_s = await self._ask(worker, check)
            reply = json.loads(line)
            leaving = "memory" if reply["leaving"] else ""
        except TimeoutError:
            leaving = "timeout"
            return Judgement(VerdictOutcome.UNSCORED, UnscoredReason.TIMEOUT, 1000 * self._deadline_s)
        except WorkerDiedError:
            leaving = "crash"
            return None
        finally:
            self._give_back(worker, leaving)
        self._answered_at = time.monotonic()
        reason = reply["reason"] and UnscoredReason(reply["reason"])
        return Judgement(VerdictOutcome(reply["outcome"]), reason, 1000 * worked_s)

    async def _ask(self, worker: Worker, check: bytes) -> tuple[bytes, float]:
        """The reply, and the seconds of work. Raises: TimeoutError or WorkerDiedError; the worker is of no use after either."""
        reply = asyncio.ensure_future(worker.ask(check))
        worked_s, times_aside, slice_ends_s = 0.0, 0, SLICE_S
        try:
            while not reply.done() and worked_s < self._deadline_s:
                if worked_s >= slice_ends_s and self._turns and self._aside < MAX_ASIDE:
                    times_aside += 1
                    slice_ends_s = worked_s + SLICE_S * 2 ** (times_aside - 1)
                    await self._step_aside(worker, times_aside)
                started = time.monotonic()
                await asyncio.wait((reply,), timeout=min(SLICE_S, self._deadline_s - worked_s))
                worked_s += time.monotonic() - started
            if not reply.done():
                raise TimeoutError
            return reply.result(), worked_s
        finally:
            reply.cancel()

    async def _step_aside(self, worker: Worker, times: int) -> None:
        """Returns when it is this one's turn again."""
        _stepped_aside.inc()
        worker.pause()
        self._aside += 1
        self._release()
        try:
            try:
                async with asyncio.timeout(MAX_ASIDE_S):
                    await self._acquire(times)
            except TimeoutError:
                await self._acquire(-1)
        except BaseException:
            self._free -= 1  # our caller, which knows nothing of this, gives back what we do not have
            raise
        finally:
            self._aside -= 1
        worker.resume()

    async def _acquire(self, times_aside: int) -> None:
        if self._free > 0 and not self._turns:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._turns, (times_aside, next(self._arrivals), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()
            raise

    def _release(self) -> None:
        self._free += 1
        while self._turns and self._free > 0:
            _, _, turn = heapq.heappop(self._turns)
            if not turn.done():
                self._free -= 1
                turn.set_result(None)

    async def _worker(self) -> Worker:
        """One that is idle, or a new one. Raises: UnavailableError."""
        while self._idle:
            worker = self._idle.popleft()
            if worker.alive:
                return worker
            self._retire(worker, "crash")
        return await self._new_worker()

    async def _new_worker(self) -> Worker:
        worker = await self._fork()
        self._workers.add(worker)
        return worker

    def _give_back(self, worker: Worker, leaving: str) -> None:
        if leaving or not worker.alive:
            self._retire(worker, leaving or "crash")
        elif len(self._idle) < self._size:
            self._idle.append(worker)
        else:  # it stood in for one that is back
            self._end(worker)

    def _retire(self, worker: Worker, reason: str) -> None:
        _replaced.labels(reason).inc()
        log.warning("verification worker %d is replaced: %s", worker.pid, reason)
        self._end(worker)

    def _end(self, worker: Worker) -> None:
        self._workers.discard(worker)
        worker.kill()

    async def _start_first(self) -> None:
        """So that the first checks need not wait for the imports; an error is theirs to tell."""
        try:
            for _ in range(self._size):
                self._idle.append(await self._new_worker())
            self._answered_at = time.monotonic()
        except UnavailableError as error:
            log.error("%s", error)  # noqa: TRY400 (all there is to say)

    async def _fork(self) -> Worker:
        """A new worker. Raises: UnavailableError."""
        for _ in range(2):
            parent = await self._warm_parent()
            try:
                return await parent.fork()
            except (TimeoutError, WorkerDiedError):
                await parent.kill()  # it died since we looked, or hangs: the next one is another
            except OSError as error:
                raise UnavailableError(
                    "verifier_unavailable", f"No verification worker can be started: {error}."
                ) from error
        raise UnavailableError("verifier_unavailable", "No verification worker can be started: their parent dies.")

    async def _warm_parent(self) -> Parent:
        async with self._starting:
            if self._parent is not None and self._parent.alive:
                return self._parent
            if time.monotonic() < self._restart_from:
                raise UnavailableError(
                    "verifier_unavailable", f"No verification worker can be started: {self._broken}."
                )
            try:
                self._parent = await Parent.start(self._command)
            except (OSError, TimeoutError, WorkerDiedError) as error:
                self._broken = f"{type(error).__name__} {error}".strip()
                self._restart_from = time.monotonic() + self._restart_pause_s
                self._restart_pause_s = min(2 * self._restart_pause_s, LAST_RESTART_PAUSE_S)
                raise UnavailableError(
                    "verifier_unavailable", f"No verification worker can be started: {self._broken}."
                ) from error
            self._restart_pause_s = FIRST_RESTART_PAUSE_S
            return self._parent
