"""The supervisor with real processes: order, restarts and their limit, deadlines, clean ends."""

import asyncio
import contextlib
import errno
import io
import itertools
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.local import orphans
from services.local.directory import DataDirectory
from services.local.errors import LocalError
from services.local.ports import choose_ports
from services.local.processes import ExitProbe, ProcessSpec, Restart
from services.local.state import ProcessStatus, StackState, StackStatus, load_state
from services.local.supervisor import RestartLimit, Supervisor
from tests.integration.local.conftest import SLEEPS, python, server

pytestmark = pytest.mark.integration
QUICK = RestartLimit(restarts=2, window_s=60, first_delay_s=0.05)


async def until(condition: Callable[[], bool], deadline_s: float = 15) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def supervised(
    specs: list[ProcessSpec], directory: DataDirectory, state: StackState, output: io.StringIO | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    supervisor = Supervisor(specs, directory, state, output=output, limit=QUICK)
    task = asyncio.create_task(supervisor.run())
    try:
        await until(lambda: state.status is StackStatus.RUNNING or task.done())
        yield task
    finally:
        supervisor.stop()
        with contextlib.suppress(LocalError):
            await task
        assert orphans.marked(state.run_id) == set(), "no process outlives its supervisor"


async def test_a_process_starts_when_those_it_depends_on_are_ready(directory: DataDirectory, state: StackState):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        port = choose_ports({"web": busy.getsockname()[1]})["web"]
    told = io.StringIO()
    specs = [
        python("worker", SLEEPS, depends_on=("web",)),
        server("web", port, depends_on=("set-up",)),
        ProcessSpec("set-up", ("sh", "-c", "sleep 0.3; echo done"), ExitProbe(), restart=Restart.ONCE),
    ]
    async with supervised(specs, directory, state, told):
        statuses = {name: process.status for name, process in state.processes.items()}
        assert statuses == {"worker": ProcessStatus.READY, "web": ProcessStatus.READY, "set-up": ProcessStatus.DONE}
        starts = [state.processes[name].since or 0 for name in ("set-up", "web", "worker")]
        assert starts == sorted(starts)
        assert starts[1] - starts[0] >= 0.3
    assert "set-up    │ done" in told.getvalue()
    assert "done" in (directory.logs / "set-up.log").read_text()
    saved = load_state(directory)
    assert saved is not None
    assert saved.status is StackStatus.STOPPED


async def test_what_dies_is_started_again(directory: DataDirectory, state: StackState):
    async with supervised([python("worker", SLEEPS)], directory, state):
        process = state.processes["worker"]
        first = process.pid
        assert first
        os.kill(first, signal.SIGKILL)
        await until(lambda: process.pid != first and process.status is ProcessStatus.READY)
        assert process.restarts == 1


async def test_the_children_of_what_died_end_before_it_starts_again(directory: DataDirectory, state: StackState):
    child = (
        "import os,subprocess,time; p=subprocess.Popen(['sleep','600'],start_new_session=True); print('child', p.pid); "
    )
    async with supervised([python("worker", child + SLEEPS)], directory, state):
        process = state.processes["worker"]
        first = process.pid
        assert first
        grandchild = int((directory.logs / "worker.log").read_text().split()[1])
        os.kill(first, signal.SIGKILL)
        await until(lambda: process.restarts == 1 and process.status is ProcessStatus.READY)
        assert orphans.started_at(grandchild) is None


async def test_too_many_deaths_stop_everything_with_the_reason(directory: DataDirectory, state: StackState):
    dies = "import sys,time; print('ready'); time.sleep(0.1); print('the disk of the moon is full'); sys.exit(3)"
    async with supervised([python("steady", SLEEPS), python("worker", dies)], directory, state) as task:
        with pytest.raises(LocalError, match=r"worker ended with code 3\.") as error:
            await task
    assert "the disk of the moon is full" in str(error.value)
    assert str(directory.logs / "worker.log") in str(error.value)
    assert state.processes["worker"].restarts == QUICK.restarts
    assert state.status is StackStatus.FAILED
    assert state.processes["steady"].status is ProcessStatus.STOPPED


async def test_a_failed_set_up_is_not_repeated(directory: DataDirectory, state: StackState):
    set_up = ProcessSpec("migrate", ("sh", "-c", "echo no such table; exit 1"), ExitProbe(), restart=Restart.ONCE)
    async with supervised([set_up, python("api", SLEEPS, depends_on=("migrate",))], directory, state) as task:
        with pytest.raises(LocalError, match="no such table"):
            await task
    assert state.processes["migrate"].restarts == 0
    assert state.processes["api"].pid is None


async def test_a_process_that_is_never_ready_fails_at_its_deadline(directory: DataDirectory, state: StackState):
    slow = python("slow", "import time; print('loading'); time.sleep(600)", ready_deadline_s=0.3, restart=Restart.ONCE)
    async with supervised([slow], directory, state) as task:
        with pytest.raises(LocalError, match="slow was not ready within 0 s") as error:
            await task
    assert "loading" in str(error.value)


async def test_a_program_that_is_missing_is_named(directory: DataDirectory, state: StackState):
    absent = ProcessSpec("ghost", ("/no/such/program",), ExitProbe())
    async with supervised([absent], directory, state) as task:
        with pytest.raises(LocalError, match="ghost cannot be started: /no/such/program: No such file"):
            await task


async def test_a_process_deaf_to_signals_is_killed_at_its_deadline(directory: DataDirectory, state: StackState):
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPS
    async with supervised([python("deaf", deaf)], directory, state):
        pid = state.processes["deaf"].pid
        assert pid
    assert orphans.started_at(pid) is None


async def test_processes_stop_after_those_that_depend_on_them(directory: DataDirectory, state: StackState):
    def says_goodbye(name: str) -> str:
        return (
            "import signal,sys,time; "
            f"signal.signal(signal.SIGTERM, lambda *_: (open('{directory.root}/ends','a').write('{name} '), sys.exit(0))); "
            + SLEEPS
        )

    specs = [
        python("store", says_goodbye("store")),
        python("api", says_goodbye("api"), depends_on=("store",)),
        python("worker", says_goodbye("worker"), depends_on=("api",)),
    ]
    async with supervised(specs, directory, state):
        pass
    assert (directory.root / "ends").read_text().split() == ["worker", "api", "store"]


async def test_a_process_that_is_never_ready_is_given_up_however_slowly_it_dies(
    directory: DataDirectory, state: StackState
):
    slow = python("engine", "import time; print('loading'); time.sleep(0.2); raise SystemExit('no such device')")
    limit = RestartLimit(first_delay_s=0.01, unready_s=0.1, window_s=0.1)
    with pytest.raises(
        LocalError, match=r"(?s)engine ended with code 1 before it was ready\. .*started 3 times.*device"
    ):
        await Supervisor([slow], directory, state, limit=limit).run()
    assert state.status is StackStatus.FAILED


async def test_an_engine_killed_for_memory_is_said_and_its_model_is_not_remembered(
    directory: DataDirectory, state: StackState
):
    state.model = "larger"
    engine = python("engine", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    async with supervised([python("steady", SLEEPS), engine], directory, state) as task:
        with pytest.raises(
            LocalError, match=r"signal SIGKILL \(most likely memory ran out: .*take a smaller --model\)"
        ) as error:
            await task
    assert str(error.value).endswith("It said nothing.")
    assert (state.remembered_model, state.remembered_seed) == ("tiny", 0)


async def test_the_model_that_was_ready_is_remembered(directory: DataDirectory, state: StackState):
    state.model, state.seed = "smollm2", 3
    async with supervised([python("engine", SLEEPS)], directory, state):
        saved = load_state(directory)
    assert saved is not None
    assert (saved.remembered_model, saved.remembered_seed) == ("smollm2", 3)


async def test_a_full_disk_stops_nothing_and_keeps_nothing_alive(
    directory: DataDirectory, state: StackState, monkeypatch: pytest.MonkeyPatch
):
    told = io.StringIO()
    async with supervised([python("worker", SLEEPS)], directory, state, told):
        process = state.processes["worker"]
        first = process.pid
        assert first

        def full(_: StackState, __: DataDirectory) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(StackState, "save", full)
        os.kill(first, signal.SIGKILL)
        await until(lambda: process.pid != first and process.status is ProcessStatus.READY)
    assert state.status is StackStatus.STOPPED
    assert told.getvalue().count("cannot be saved (No space left on device)") == 1


async def test_a_disk_that_fills_up_is_said_once_and_stops_nothing(directory: DataDirectory, state: StackState):
    told, looks, is_full = io.StringIO(), itertools.count(), False

    def check_disk(place: Path) -> None:
        if is_full:
            raise LocalError(f"The disk of {place} has 0.{next(looks)} GB free and Headwater wants 2 GB: free some.")

    worker = [python("worker", SLEEPS)]
    supervisor = Supervisor(worker, directory, state, output=told, check_disk=check_disk, disk_interval_s=0.01)
    task = asyncio.create_task(supervisor.run())
    await until(lambda: state.status is StackStatus.RUNNING)
    assert state.warning == ""
    is_full = True
    await until(lambda: next(looks) > 5)
    saved = load_state(directory)
    assert saved is not None
    assert saved.warning.startswith(f"The disk of {directory.root} has 0.")
    is_full = False
    await until(lambda: state.warning == "")
    supervisor.stop()
    await task
    assert told.getvalue().count("Headwater wants 2 GB: free some. Until then work may stand still") == 1
    assert told.getvalue().count("the disk has room again") == 1
    assert state.status is StackStatus.STOPPED
