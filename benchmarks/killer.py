"""`kill -9` of the parts of a running Headwater: whom and when is spread over the steps of a run by a seed.

Over steps, not over the clock, so that a slow machine is killed as often as a quick one. The supervisor of `headwater up` starts again
what dies; the trainer is its worker's to start again.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.prepared import Running
from benchmarks.run_lineage import Witness
from services.local import orphans
from services.local.state import ProcessStatus

ENGINE, TRAINER = "engine", "trainer"
OTHERS = (TRAINER, "training-worker", "generation", "pool", "postgres", "valkey", "sampling-worker")
POLL_S = 0.5
# Longer than a step takes here, so that a kill may come at any moment of one.
MAX_PAUSE_S = 6.0


@dataclass(frozen=True, order=True)
class Moment:
    """Kill `victim` so many seconds after the run has first come to a step."""

    step: int
    pause_s: float
    victim: str


@dataclass(frozen=True)
class Strike:
    """One `kill -9` that was done, `after_s` from the start of the run, at the step that the run had reached."""

    after_s: float
    step: int
    victim: str
    pid: int


def moments(kills: int, engine_kills: int, steps: int, seed: int) -> list[Moment]:
    """Who is killed when in the first nine tenths of the steps, in order: the engine so many times, the others about equally often."""
    rng, last = random.Random(seed), steps * 9 // 10
    victims = [ENGINE] * engine_kills + [OTHERS[number % len(OTHERS)] for number in range(kills - engine_kills)]
    return sorted(Moment(rng.randrange(last), rng.uniform(0, MAX_PAUSE_S), victim) for victim in victims)


@dataclass
class Killer:
    """Carries out a plan on a running stack, while `witness` looks on."""

    running: Running
    witness: Witness
    deadline_s: float

    def strikes(self, plan: list[Moment]) -> Iterator[Strike]:
        """Each kill when it is done. Raises: RuntimeError when the run is over before the plan is, or nothing goes on."""
        began = time.monotonic()
        for moment in plan:
            self._wait(f"step {moment.step}", lambda moment=moment: self.witness.step >= moment.step)  # type: ignore[misc]
            time.sleep(moment.pause_s)
            while (pid := self._strike(moment.victim)) is None:
                self._wait(f"the {moment.victim}", lambda moment=moment: self._pid(moment.victim) is not None)  # type: ignore[misc]
            yield Strike(time.monotonic() - began, self.witness.step, moment.victim, pid)

    def _strike(self, victim: str) -> int | None:
        """The process that was killed, if there was one."""
        pid = self._pid(victim)
        with suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                return pid
        return None

    def _pid(self, victim: str) -> int | None:
        state = self.running.state
        if victim == TRAINER:
            return next((pid for pid in orphans.marked(state.run_id) if _is_trainer(pid)), None)
        process = state.processes[victim]
        # An engine needs minutes to come back; killed before it is there, it would only be waited for again.
        may_die = (ProcessStatus.READY,) if victim == ENGINE else (ProcessStatus.READY, ProcessStatus.STARTING)
        is_there = process.pid is not None and orphans.is_alive(process.pid, process.started)
        return process.pid if is_there and process.status in may_die else None

    def _wait(self, what: str, reached: Callable[[], bool]) -> None:
        until = time.monotonic() + self.deadline_s
        while not reached():
            if self.witness.look():
                raise RuntimeError(f"The run was over before {what} came.")
            if time.monotonic() > until:
                raise RuntimeError(
                    f"{what} did not come in {self.deadline_s:.0f} s; the run stands at {self.witness.step}."
                )
            time.sleep(POLL_S)


def _is_trainer(pid: int) -> bool:
    with suppress(OSError):
        return b"services.training.execute" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
