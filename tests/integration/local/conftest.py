"""Small real process tables for the supervisor."""

import os
import signal
import sys
import uuid
from pathlib import Path

import pytest

from services.local import orphans
from services.local.directory import DataDirectory
from services.local.processes import HttpProbe, LogProbe, ProcessSpec
from services.local.state import StackState


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    made = DataDirectory.at(tmp_path / "data")
    made.create()
    return made


@pytest.fixture
def state() -> StackState:
    pid = os.getpid()
    return StackState(uuid.uuid4().hex, pid, orphans.started_at(pid), model="none")


def python(
    name: str, program: str, *, says: str = "ready", depends_on: tuple[str, ...] = (), **more: object
) -> ProcessSpec:
    """A process that runs `program` and is ready when it says so."""
    command = (sys.executable, "-uc", program)
    return ProcessSpec(name, command, LogProbe(says), depends_on, stop_deadline_s=1.0, **more)  # type: ignore[arg-type]


def server(name: str, port: int, depends_on: tuple[str, ...] = ()) -> ProcessSpec:
    """A process that serves files by HTTP."""
    command = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port))
    return ProcessSpec(name, command, HttpProbe(port, "/"), depends_on, port=port, stop_signal=signal.SIGTERM)


SLEEPS = "import time; print('ready'); time.sleep(600)"
