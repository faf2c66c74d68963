"""Nothing survives its supervisor: a supervisor in a process of its own, with real servers, is stopped in every way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from services.local import orphans, stack
from services.local.directory import DataDirectory
from services.local.state import StackState, StackStatus, load_state

pytestmark = pytest.mark.integration

SUPERVISOR = """
import asyncio, os, sys, uuid
from pathlib import Path
from services.local import orphans, postgres, valkey, stack, state
from services.local.directory import DataDirectory
from services.local.engine import EngineModel
from services.local.errors import LocalError
from services.local.ports import choose_ports
from services.local.processes import StackSettings, process_table
from services.local.supervisor import Supervisor
from tests.integration.local.conftest import python

GRANDCHILDREN = (
    "import subprocess, sys, time; "
    "[subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=new) for new in (0, 1)]; "
    "print('ready'); time.sleep(600)"
)

directory = DataDirectory.at(Path(sys.argv[1]))
directory.create()
try:
    with state.exclusive(directory):
        stack.end_leftovers(directory)
        postgres.initialise(directory.postgres, "secret")
        settings = StackSettings(directory, EngineModel("none", "none"), choose_ports(), postgres_password="secret")
        stores = [spec for spec in process_table(settings) if spec.name in ("postgres", "valkey")]
        run = state.StackState(uuid.uuid4().hex, os.getpid(), orphans.started_at(os.getpid()), "none", ports=settings.ports)
        asyncio.run(Supervisor([*stores, python("worker", GRANDCHILDREN)], directory, run).run())
except LocalError as error:
    sys.exit(f"headwater: {error}")
"""


def until(condition: Callable[[], object], deadline_s: float = 20) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it didn't happen in time"
        time.sleep(0.05)


def start(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(root)], stderr=subprocess.PIPE, text=True)


def running(process: subprocess.Popen[str], directory: DataDirectory) -> StackState:
    def is_running() -> bool:
        assert process.poll() is None, process.communicate()[1]
        state = load_state(directory)
        return bool(state and state.supervisor_pid == process.pid and state.status is StackStatus.RUNNING)

    until(is_running)
    state = load_state(directory)
    assert state is not None
    return state


def family(state: StackState) -> set[int]:
    """All processes of a run: marked ones, and Postgres' own children (each in a session of its own)."""
    leaders = [psutil.Process(process.pid) for process in state.processes.values() if process.pid]
    children = (child.pid for leader in leaders for child in leader.children(recursive=True))
    return orphans.marked(state.run_id) | {leader.pid for leader in leaders} | set(children)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DataDirectory]:
    made = DataDirectory.at(tmp_path)
    yield made
    state = load_state(made)
    if state is not None:
        stack.stop(made)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_outlives_the_supervisor(directory: DataDirectory, number: signal.Signals):
    process = start(directory.root)
    state = running(process, directory)
    before = {pid: orphans.started_at(pid) for pid in family(state)}
    assert len(before) >= 10, "Postgres with its children, Valkey, and a worker with two"
    process.send_signal(number)
    process.wait(timeout=30)
    until(lambda: not any(orphans.is_alive(pid, started) for pid, started in before.items()))
    assert process.returncode == (0 if number is not signal.SIGKILL else -signal.SIGKILL)


def test_it_starts_again_after_kill_9_of_everything(directory: DataDirectory):
    process = start(directory.root)
    state = running(process, directory)
    for pid in (process.pid, *family(state)):
        with suppress(ProcessLookupError):  # the first kill takes the others with it, sooner or later
            os.kill(pid, signal.SIGKILL)
    process.wait()
    process = start(directory.root)
    again = running(process, directory)
    assert again.run_id != state.run_id
    process.terminate()
    process.wait(timeout=30)


def test_leftovers_of_a_killed_supervisor_are_ended_at_the_next_start(directory: DataDirectory, tmp_path: Path):
    directory.create()
    mark = "0123456789abcdef"
    environment = os.environ | {orphans.MARK: f"{mark}/worker"}
    leftover = subprocess.Popen(["sleep", "600"], env=environment, start_new_session=True)
    innocent = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        gone = StackState(mark, supervisor_pid=leftover.pid, supervisor_started="1", model="none")
        gone.save(directory)
        assert stack.end_leftovers(directory) == 1
        assert leftover.wait(timeout=5) == -signal.SIGTERM
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_pid_that_now_belongs_to_another_process_is_left_alone(directory: DataDirectory):
    from services.local.state import ProcessState

    directory.create()
    innocent = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        worker = ProcessState("worker", pid=innocent.pid, started="1")
        StackState("feedfeed", innocent.pid, "1", "none", processes={"worker": worker}).save(directory)
        assert stack.end_leftovers(directory) == 0
        assert stack.stop(directory) is False
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_two_supervisors_never_share_a_data_directory(directory: DataDirectory):
    process = start(directory.root)
    running(process, directory)
    second = start(directory.root)
    _, words = second.communicate(timeout=20)
    assert second.returncode == 1
    assert f"already runs on {directory.root} (process {process.pid})" in words
    assert stack.stop(directory) is True
    assert process.wait(timeout=10) == 0
