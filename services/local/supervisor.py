"""Keeps a table of processes alive: starts each when those it depends on are ready, restarts what dies, stops all in reverse.

Invariant: when `run` returns or raises, no process it started lives. Back-off doubles from 0.5 s to 30 s; a process that
dies more often than the limit within the window, or again and again before it is ready, stops everything, with its name
and last words. A full disk stops nothing: it is said, and the state in memory goes on. Limit: one event
loop in the main thread (PR_SET_PDEATHSIG follows the thread that started a child).
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from services.local import orphans, resources
from services.local.child import Child, describe_exit
from services.local.directory import DataDirectory
from services.local.errors import LocalError
from services.local.logs import Prefixed, ProcessLog
from services.local.processes import ProcessSpec, Restart
from services.local.state import ProcessState, ProcessStatus, StackState, StackStatus


@dataclass(frozen=True)
class RestartLimit:
    """At most `restarts` within `window_s`; the first waits `first_delay_s`, each further one twice as long.

    `unready_lives` in a row that ended before they were ready, over at least `unready_s`, are the end too, however slow:
    an engine may take many minutes to fail. A quick refusal at first (Postgres after `kill -9`) is left to the back-off.
    """

    restarts: int = 6
    window_s: float = 600
    unready_lives: int = 3
    unready_s: float = 60
    first_delay_s: float = 0.5
    max_delay_s: float = 30


@dataclass
class Restarts:
    """The recent restarts of one process."""

    limit: RestartLimit
    _times: deque[float] = field(default_factory=deque)
    _unready: list[float] = field(default_factory=list)

    def next_delay_s(self, now: float, unready_since: float | None = None) -> float | None:
        """How long to wait before the next start, or None when a limit is reached.

        `unready_since`: when the life that ended now began, if it never was ready.
        """
        self._unready = [] if unready_since is None else [*self._unready, unready_since]
        if len(self._unready) >= self.limit.unready_lives and now - self._unready[0] >= self.limit.unready_s:
            return None
        while self._times and now - self._times[0] > self.limit.window_s:
            self._times.popleft()
        if len(self._times) >= self.limit.restarts:
            return None
        self._times.append(now)
        return float(min(self.limit.first_delay_s * 2 ** (len(self._times) - 1), self.limit.max_delay_s))


class Supervisor:
    """Runs `specs` until it's told to stop. `state` is saved at each change."""

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        directory: DataDirectory,
        state: StackState,
        *,
        output: TextIO | None = None,
        limit: RestartLimit | None = None,
        check_disk: Callable[[Path], None] = resources.check_disk,
        disk_interval_s: float = 10,
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._directory = directory
        self._state = state
        self._limit = limit or RestartLimit()
        self._check_disk = check_disk
        self._disk_interval_s = disk_interval_s
        names = ["headwater", *self._specs]
        stream = Prefixed(names, output)
        self._own_log = ProcessLog("headwater", directory.logs, stream)
        self._logs = {name: ProcessLog(name, directory.logs, stream) for name in self._specs}
        self._ready = {name: asyncio.Event() for name in self._specs}
        self._stopped = {name: asyncio.Event() for name in self._specs}
        self._children: dict[str, Child] = {}
        self._must_stop = asyncio.Event()
        self._is_saved = True
        state.processes = {spec.name: ProcessState(spec.name, port=spec.port) for spec in specs}

    async def run(self) -> None:
        """Start, keep and stop. Returns after SIGINT, SIGTERM or `stop`.

        Raises:
            LocalError: a process couldn't be started or kept; everything is stopped.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.stop)
        reaper = orphans.start_reaper(self._state.run_id)
        self._save(StackStatus.STARTING)
        try:
            await self._keep_all()
        except LocalError as error:
            self._state.error = str(error)
            self._say(f"stopping everything: {error}")
            raise
        finally:
            await self._stop_all()
            assert reaper.stdin is not None
            reaper.stdin.close()
            await asyncio.to_thread(reaper.wait)
            self._save(StackStatus.FAILED if self._state.error else StackStatus.STOPPED)
            for log in (self._own_log, *self._logs.values()):
                log.close()

    def stop(self) -> None:
        """Begin to stop; `run` returns when all have ended."""
        self._must_stop.set()

    async def _keep_all(self) -> None:
        keepers = {asyncio.create_task(self._keep(spec), name=spec.name) for spec in self._specs.values()}
        announcer = asyncio.create_task(self._announce())
        watcher = asyncio.create_task(self._watch_disk())
        stopper = asyncio.create_task(self._must_stop.wait())
        helpers = (stopper, announcer, watcher)
        waiting = {*helpers, *keepers}
        try:
            while waiting and not self._must_stop.is_set():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in (*helpers, *keepers):
                task.cancel()
            await asyncio.gather(*helpers, *keepers, return_exceptions=True)

    async def _announce(self) -> None:
        began = time.monotonic()
        for ready in self._ready.values():
            await ready.wait()
        self._state.remembered_model, self._state.remembered_seed = self._state.model, self._state.seed
        self._save(StackStatus.RUNNING)
        self._say(f"all {len(self._ready)} processes are ready after {time.monotonic() - began:.0f} s")

    async def _watch_disk(self) -> None:
        """Say it once when the disk is nearly full: work that stands still then has its reason."""
        while True:
            before, self._state.warning = self._state.warning, ""
            try:
                self._check_disk(self._directory.root)
            except (LocalError, OSError) as error:
                self._state.warning = before or f"{error} Until then work may stand still."
            if self._state.warning != before:
                self._say(self._state.warning or "the disk has room again")
                self._save()
            await asyncio.sleep(self._disk_interval_s)

    async def _keep(self, spec: ProcessSpec) -> None:
        for name in spec.depends_on:
            await self._ready[name].wait()
        restarts = Restarts(self._limit)
        while True:
            began = time.monotonic()
            cause = await self._live_once(spec)
            if cause is None:
                return
            was_ready = self._state.processes[spec.name].status is ProcessStatus.READY
            delay_s = restarts.next_delay_s(time.monotonic(), None if was_ready else began)
            if delay_s is None or (spec.restart is Restart.ONCE):
                self._mark(spec.name, ProcessStatus.FAILED)
                raise LocalError(self._last_words(spec, cause))
            self._say(f"{cause} Starting it again in {delay_s:.1f} s.")
            self._state.processes[spec.name].restarts += 1
            self._mark(spec.name, ProcessStatus.RESTARTING)
            await asyncio.sleep(delay_s)

    async def _live_once(self, spec: ProcessSpec) -> str | None:
        """One life of a process. Returns why it ended, or None when its work is done."""
        child = await Child.start(spec, self._logs[spec.name], self._state.run_id)
        self._children[spec.name] = child
        process = self._state.processes[spec.name]
        process.pid, process.started, process.since = child.pid, child.started, time.time()
        self._mark(spec.name, ProcessStatus.STARTING)
        try:
            await child.until_ready()
        except LocalError as error:
            await child.stop()
            return str(error)
        self._mark(spec.name, ProcessStatus.DONE if spec.restart is Restart.ONCE else ProcessStatus.READY)
        self._ready[spec.name].set()
        if spec.restart is Restart.ONCE:
            return None
        code = await child.wait()
        await child.stop()
        return f"{spec.name} ended with {describe_exit(code)}."

    async def _stop_all(self) -> None:
        self._save(StackStatus.STOPPING)
        self._say("stopping")
        await asyncio.gather(*(self._stop_in_turn(spec) for spec in self._specs.values()))
        await asyncio.to_thread(orphans.end, lambda: orphans.marked(self._state.run_id), 1.0)
        self._say("stopped")

    async def _stop_in_turn(self, spec: ProcessSpec) -> None:
        """Stop one process after all that depend on it."""
        try:
            for other in self._specs.values():
                if spec.name in other.depends_on:
                    await self._stopped[other.name].wait()
            if spec.name in self._children:
                await self._children[spec.name].stop()
            if self._state.processes[spec.name].status not in (ProcessStatus.FAILED, ProcessStatus.DONE):
                self._mark(spec.name, ProcessStatus.STOPPED)
        finally:
            self._stopped[spec.name].set()

    def _last_words(self, spec: ProcessSpec, cause: str) -> str:
        log = self._logs[spec.name]
        starts = self._state.processes[spec.name].restarts + 1
        often = "" if spec.restart is Restart.ONCE else f" It was started {starts} times; that's enough."
        words = log.last_words()
        said = f"Its last words (all of them: {log.path}):\n{words}" if words else "It said nothing."
        return f"{cause}{often} {said}"

    def _mark(self, name: str, status: ProcessStatus) -> None:
        self._state.processes[name].status = status
        self._save()

    def _save(self, status: StackStatus | None = None) -> None:
        """Save the state, as `status` if given. A full disk makes it old, and is said once."""
        self._state.status = status or self._state.status
        try:
            self._state.save(self._directory)
            self._is_saved = True
        except OSError as error:
            if self._is_saved:
                self._is_saved = False
                self._say(
                    f"the state cannot be saved ({error.strerror}): `headwater status` shows an old one meanwhile"
                )

    def _say(self, words: str) -> None:
        self._own_log.feed(words.encode() + b"\n")
