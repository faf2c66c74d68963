"""The running stack as other commands see it: `run/state.json`, and the lock that keeps two supervisors apart.

Invariant: the file is replaced in one step, and a pid in it counts only together with the moment that process started.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from services.local import orphans
from services.local.directory import DataDirectory, write_private
from services.local.errors import LocalError


class ProcessStatus(StrEnum):
    """Where one process stands."""

    WAITING = "waiting"  # for those it depends on
    STARTING = "starting"
    READY = "ready"
    DONE = "done"  # it ran to its end, as it should
    RESTARTING = "restarting"
    STOPPED = "stopped"
    FAILED = "failed"


class StackStatus(StrEnum):
    """Where the whole stack stands."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass
class ProcessState:
    """One process of the running stack; `since` is the Unix time of its last start."""

    name: str
    status: ProcessStatus = ProcessStatus.WAITING
    pid: int | None = None
    started: str | None = None
    since: float | None = None
    restarts: int = 0
    port: int | None = None


@dataclass
class StackState:
    """What `run/state.json` holds. `ports` and `urls` are empty until the model is there.

    `error`: why it ended; `warning`: why its work may stand still. `remembered_…`: the model that last was ready with all the
    rest; the next start takes it.
    """

    run_id: str
    supervisor_pid: int
    supervisor_started: str | None
    model: str
    seed: int = 0
    remembered_model: str = "tiny"
    remembered_seed: int = 0
    status: StackStatus = StackStatus.STARTING
    error: str | None = None
    warning: str = ""
    urls: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, ProcessState] = field(default_factory=dict)

    @property
    def is_alive(self) -> bool:
        """Whether its supervisor still runs."""
        return orphans.is_alive(self.supervisor_pid, self.supervisor_started)

    @property
    def is_up(self) -> bool:
        """Whether it runs or will: its supervisor lives and is not about to end."""
        return self.is_alive and self.status in (StackStatus.STARTING, StackStatus.RUNNING)

    def save(self, directory: DataDirectory) -> None:
        """Replace the file."""
        write_private(state_file(directory), json.dumps(asdict(self), indent=1))


def state_file(directory: DataDirectory) -> Path:
    """Where the state of the last stack is."""
    return directory.run / "state.json"


def load_state(directory: DataDirectory) -> StackState | None:
    """The last stack of this directory, running or not; None if there never was one."""
    path = state_file(directory)
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text())
    processes = {
        name: ProcessState(**process | {"status": ProcessStatus(process["status"])})
        for name, process in content.pop("processes").items()
    }
    remembered = {
        "remembered_model": content["model"],
        "remembered_seed": content.get("seed", 0),
    }  # where it has none yet
    return StackState(**remembered | content | {"status": StackStatus(content["status"]), "processes": processes})


@contextmanager
def exclusive(directory: DataDirectory, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the data directory against a second supervisor; the kernel lets go when this process ends, however it ends.

    A holder that is about to end, or has not yet said what it is, is waited for.

    Raises:
        LocalError: another one holds it.
    """
    descriptor = os.open(directory.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + wait_s
        while not _locked(descriptor):
            state = load_state(directory)
            if (state is not None and state.is_up) or time.monotonic() >= until:
                holder = f" (process {state.supervisor_pid})" if state else ""
                raise LocalError(
                    f"Headwater already runs on {directory.root}{holder}: stop it with `headwater down`, "
                    "or name another directory with --data-dir."
                )
            time.sleep(0.2)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
