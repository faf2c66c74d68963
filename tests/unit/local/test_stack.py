"""Starting: as the last time, visible to others from the beginning, and ended however early it is told to."""

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from services.local import orphans, postgres, resources, stack
from services.local.cli import app
from services.local.directory import DataDirectory
from services.local.engine import EngineModel
from services.local.errors import LocalError
from services.local.ports import DEFAULT_PORTS
from services.local.stack import UpOptions
from services.local.state import StackState, StackStatus, exclusive, load_state, state_file


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    made = DataDirectory.at(tmp_path)
    made.create()
    return made


def ended(model: str, seed: int) -> StackState:
    """The state of a supervisor that lives no more, and that had a larger model when it failed."""
    return StackState("feed", 1, "0", "larger", 9, remembered_model=model, remembered_seed=seed)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [({}, ("smollm2", 3)), ({"seed": 0}, ("smollm2", 0)), ({"model": "tiny", "seed": 1}, ("tiny", 1))],
)
def test_it_starts_with_what_last_was_ready_unless_told_otherwise(
    directory: DataDirectory, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], chosen: tuple[str, int]
):
    ended("smollm2", 3).save(directory)
    seen: list[StackState | None] = []

    def make_model(name: str, _: DataDirectory, seed: int) -> EngineModel:
        assert (name, seed) == chosen
        seen.append(stack.running(directory))
        raise LocalError("no such model")

    monkeypatch.setattr(stack, "make_model", make_model)
    with pytest.raises(LocalError, match="no such model"):
        stack.serve(UpOptions(directory, **options), None)  # type: ignore[arg-type]
    (starting,) = seen
    assert starting is not None, "others see it while it prepares"
    assert (starting.status, starting.model, starting.seed) == (StackStatus.STARTING, *chosen)
    failed = load_state(directory)
    assert failed is not None
    assert (failed.status, failed.error) == (StackStatus.FAILED, "no such model")
    assert (failed.remembered_model, failed.remembered_seed) == ("smollm2", 3), "what cannot be had is not remembered"
    assert orphans.MARK not in os.environ


@pytest.mark.parametrize(
    ("missing", "seed"),
    [(("remembered_model", "remembered_seed"), 9), (("remembered_model", "remembered_seed", "seed"), 0)],
)
def test_a_state_file_that_remembers_nothing_yet_has_the_model_that_it_ran_with(
    directory: DataDirectory, missing: tuple[str, ...], seed: int
):
    ended("tiny", 0).save(directory)
    content = json.loads(state_file(directory).read_text())
    for name in missing:
        del content[name]
    state_file(directory).write_text(json.dumps(content))
    state = load_state(directory)
    assert state is not None
    assert (state.remembered_model, state.remembered_seed) == ("larger", seed)


def test_ports_are_chosen_when_the_model_is_there(directory: DataDirectory, monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []

    def make_model(name: str, _: DataDirectory, __: int) -> EngineModel:
        done.append("model")
        return EngineModel(name, "/models/tiny")

    def choose_ports() -> dict[str, int]:
        done.append("ports")
        return {**DEFAULT_PORTS, "gateway": 9}

    monkeypatch.setattr(stack, "make_model", make_model)
    monkeypatch.setattr(stack, "choose_ports", choose_ports)
    monkeypatch.setattr(postgres, "initialise", lambda *_: None)
    monkeypatch.setattr(resources, "available_memory_bytes", lambda: 0)
    output = StringIO()
    with pytest.raises(LocalError, match="Not enough memory"):
        stack.serve(UpOptions(directory), output)
    assert done == ["model", "ports"]
    assert output.getvalue() == "Port 8400 is in use: gateway listens on 9 this time.\n"
    state = load_state(directory)
    assert state is not None
    assert state.urls["gateway"] == "http://127.0.0.1:9"


def test_up_detached_says_which_ports_are_in_use(directory: DataDirectory, monkeypatch: pytest.MonkeyPatch):
    pid, urls = os.getpid(), {"gateway": "http://127.0.0.1:9"}
    state = StackState("r", pid, orphans.started_at(pid), "tiny", status=StackStatus.RUNNING, urls=urls)
    state.ports = {"gateway": 9, "pool": 8401}
    state.save(directory)
    monkeypatch.setattr(stack, "start_detached", lambda _: None)
    result = CliRunner().invoke(app, ["up", "--detach", "--data-dir", str(directory.root)])
    first, second = result.stdout.splitlines()
    assert first == "Port 8400 is in use: gateway listens on 9 this time."
    assert second.startswith("Headwater is up: http://127.0.0.1:9")


def test_while_the_model_is_made_there_are_no_addresses_yet(directory: DataDirectory):
    pid = os.getpid()
    StackState("r", pid, orphans.started_at(pid), "tiny").save(directory)
    status = CliRunner().invoke(app, ["status", "--data-dir", str(directory.root)])
    assert (status.exit_code, "the model is being made or downloaded" in status.stdout) == (0, True)
    listed = CliRunner().invoke(app, ["campaign", "list", "--data-dir", str(directory.root)])
    assert (listed.exit_code, "still prepares its model" in listed.stderr) == (1, True)


def test_a_new_directory_has_the_tiny_model(directory: DataDirectory, monkeypatch: pytest.MonkeyPatch):
    def make_model(name: str, _: DataDirectory, seed: int) -> EngineModel:
        raise LocalError(f"{name} {seed}")

    monkeypatch.setattr(stack, "make_model", make_model)
    with pytest.raises(LocalError, match="tiny 0"):
        stack.serve(UpOptions(directory), None)


def test_a_preparation_that_is_told_to_stop_ends_what_it_began(directory: DataDirectory):
    program = (
        "import subprocess, sys; from pathlib import Path; from services.local import stack; "
        "from services.local.directory import DataDirectory; "
        "stack.make_model = lambda *_: subprocess.run(['sh', '-c', 'echo $$ >&2; sleep 600; true']); "
        "stack.serve(stack.UpOptions(DataDirectory.at(Path(sys.argv[1])), 'smollm2', 0), None)"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", program, str(directory.root)], stderr=subprocess.PIPE)
    assert supervisor.stderr is not None
    maker = int(supervisor.stderr.readline())
    started = orphans.started_at(maker)
    state = load_state(directory)
    assert state is not None
    assert maker in orphans.marked(state.run_id)
    stack.stop_detached(directory, supervisor)
    assert supervisor.returncode == 128 + 15
    assert not orphans.is_alive(maker, started)
    assert orphans.marked(state.run_id) == set()
    assert state.model == "smollm2"


def test_a_supervisor_that_has_not_said_anything_yet_is_ended_too(directory: DataDirectory):
    supervisor = subprocess.Popen(["sleep", "600"])
    stack.stop_detached(directory, supervisor)
    assert supervisor.poll() is not None


@pytest.mark.parametrize("ends_with_me", [True, False])
def test_a_supervisor_ends_with_who_started_it_only_if_it_was_asked_to(directory: DataDirectory, ends_with_me: bool):
    program = (
        "import sys, time; from pathlib import Path; from services.local import stack; "
        "from services.local.directory import DataDirectory; "
        "options = stack.UpOptions(DataDirectory.at(Path(sys.argv[1])), 'tiny', 0); "
        "print(stack.start_detached(options, ends_with_me=sys.argv[2] == 'True').pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(directory.root), str(ends_with_me)]
    with exclusive(directory):  # so that it waits, and starts nothing
        starter = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert starter.stdout is not None
        supervisor = psutil.Process(int(starter.stdout.readline()))
        starter.kill()
        starter.wait()
        gone, alive = psutil.wait_procs([supervisor], timeout=10 if ends_with_me else 1)
        for process in alive:
            process.kill()
    assert (len(gone), len(alive)) == (int(ends_with_me), int(not ends_with_me))


def test_who_waits_for_a_stack_hears_of_its_end(directory: DataDirectory):
    state = ended("tiny", 0)
    state.error = "engine was not ready"
    state.save(directory)
    with pytest.raises(LocalError, match="engine was not ready"):
        stack.wait_until_running(directory, None, lambda _: None)


def test_a_stack_that_stops_is_waited_for_and_one_that_runs_is_not(directory: DataDirectory):
    holder = (
        "import os, sys, time; from pathlib import Path; from services.local import orphans, state; "
        "from services.local.directory import DataDirectory; directory = DataDirectory.at(Path(sys.argv[1])); "
        "held = state.exclusive(directory); held.__enter__(); "
        "mine = state.StackState('r', os.getpid(), orphans.started_at(os.getpid()), 'tiny', status=sys.argv[2]); "
        "mine.save(directory); print('held', flush=True); sys.stdin.read(1); time.sleep(0.5)"
    )
    for status in ("running", "stopping"):
        command = [sys.executable, "-c", holder, str(directory.root), status]
        other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        if status == "running":
            with pytest.raises(LocalError, match=f"process {other.pid}"), exclusive(directory, wait_s=60):
                pass
        other.stdin.close()
        if status == "stopping":
            with exclusive(directory, wait_s=60):
                assert other.wait(timeout=20) == 0, "it ended by itself"
        other.wait()
