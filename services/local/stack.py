"""Starts, finds and stops the whole stack of one data directory.

Invariant: a directory has one supervisor at most; whatever a killed one left is ended before the next one starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from services.local import orphans, postgres, resources
from services.local.directory import DataDirectory
from services.local.engine import make_model
from services.local.errors import LocalError
from services.local.ports import choose_ports, unusual_ports
from services.local.processes import StackSettings, process_table
from services.local.state import StackState, StackStatus, exclusive, load_state
from services.local.supervisor import Supervisor

POSTGRES_STOP_DEADLINE_S = 20
STOP_DEADLINE_S = 90
_DEFAULT_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "MALLOC_ARENA_MAX": "2"}


@dataclass(frozen=True)
class UpOptions:
    """What `headwater up` was asked for. None: as it last was ready on this directory; at first the tiny model, seed 0."""

    directory: DataDirectory
    model: str | None = None
    seed: int | None = None


def serve(options: UpOptions, output: TextIO | None) -> None:
    """Run the stack in this process until it's stopped.

    Raises:
        LocalError: it can't run; nothing of it is left running.
    """
    directory = options.directory
    _create(directory)
    with exclusive(directory, wait_s=STOP_DEADLINE_S):
        end_leftovers(directory)
        last = load_state(directory)
        state = _new_state(options, last)
        with _announced(state, directory):
            settings = _prepare(directory, state, output)
            resources.check_memory(process_table(settings), resources.available_memory_bytes())
        for name, value in _DEFAULT_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        asyncio.run(_supervise(settings, state, output))


def _new_state(options: UpOptions, last: StackState | None) -> StackState:
    model, seed = (last.remembered_model, last.remembered_seed) if last else ("tiny", 0)
    return StackState(
        run_id=uuid.uuid4().hex,
        supervisor_pid=os.getpid(),
        supervisor_started=orphans.started_at(os.getpid()),
        model=options.model or model,
        seed=seed if options.seed is None else options.seed,
        remembered_model=model,
        remembered_seed=seed,
    )


@contextmanager
def _announced(state: StackState, directory: DataDirectory) -> Iterator[None]:
    """While the preparation lasts, others can see this supervisor, SIGTERM ends it, and what it starts bears its mark."""
    state.save(directory)
    os.environ[orphans.MARK] = state.run_id
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    except LocalError as error:
        state.status, state.error = StackStatus.FAILED, str(error)
        state.save(directory)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        del os.environ[orphans.MARK]


async def _supervise(settings: StackSettings, state: StackState, output: TextIO | None) -> None:
    await Supervisor(process_table(settings), settings.directory, state, output=output).run()


def _create(directory: DataDirectory) -> None:
    try:
        directory.create()
    except OSError as error:
        raise LocalError(f"The data directory {directory.root} cannot be used: {error.strerror}.") from error
    resources.check_disk(directory.root)


def _prepare(directory: DataDirectory, state: StackState, output: TextIO | None) -> StackSettings:
    model = make_model(state.model, directory, state.seed)
    password = directory.secret("postgres_password")
    postgres.initialise(directory.postgres, password)
    ports = state.ports = choose_ports()  # last: while a model is downloaded others may take one
    state.urls = {
        name: f"http://127.0.0.1:{port}" for name, port in ports.items() if name not in ("postgres", "valkey")
    }
    if output is not None:
        for sentence in unusual_ports(ports):
            print(sentence, file=output, flush=True)
    return StackSettings(
        directory=directory,
        model=model,
        ports=ports,
        postgres_password=password,
        service_token=directory.secret("service_token"),
        flower_password=directory.secret("flower_password"),
    )


def end_leftovers(directory: DataDirectory) -> int:
    """End what a killed supervisor left: by its mark, and by recorded pid and start. Returns how many there were."""
    state = load_state(directory)
    if state is None:
        return 0

    def recorded() -> set[int]:
        return {p.pid for p in state.processes.values() if p.pid and orphans.is_alive(p.pid, p.started)}

    database = state.processes.get("postgres")
    ended = 0
    if database and database.pid and database.pid in recorded():
        ended += orphans.end(lambda: {database.pid or 0} & recorded(), POSTGRES_STOP_DEADLINE_S, signal.SIGINT)
    return ended + orphans.end(lambda: orphans.marked(state.run_id) | recorded(), deadline_s=5)


def running(directory: DataDirectory) -> StackState | None:
    """The stack that runs on this directory now, or None."""
    state = load_state(directory)
    return state if state is not None and state.is_alive else None


def start_detached(options: UpOptions, *, ends_with_me: bool = False) -> subprocess.Popen[bytes]:
    """Start a supervisor in a session of its own; its own words go to logs/supervisor.log.

    It outlives this command, or (`ends_with_me`) stops everything when this command ends, also by `kill -9`.
    """
    _create(options.directory)
    words = ["--data-dir", str(options.directory.root)]
    words += [] if options.model is None else ["--model", options.model]
    words += [] if options.seed is None else ["--seed", str(options.seed)]
    with (options.directory.logs / "supervisor.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "services.local.cli", "up", "--quiet", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=orphans.adopted_by(os.getpid(), signal.SIGTERM) if ends_with_me else os.setsid,
        )


def wait_until_running(
    directory: DataDirectory, supervisor: subprocess.Popen[bytes] | None, on_change: Callable[[StackState], None]
) -> StackState:
    """Wait for a detached supervisor, or (None) for the one that holds the directory; `on_change` sees every new state.

    Raises:
        LocalError: it ended; the sentence is its own.
    """
    while supervisor is None or supervisor.poll() is None:
        state = running(directory)
        if state is not None and (supervisor is None or state.supervisor_pid == supervisor.pid):
            on_change(state)
            if state.status is StackStatus.RUNNING:
                return state
        elif supervisor is None:
            last = load_state(directory)
            raise LocalError((last and last.error) or f"Headwater on {directory.root} ended before it was ready.")
        time.sleep(0.3)
    words = (directory.logs / "supervisor.log").read_text(errors="replace").strip()
    raise LocalError(words or f"The supervisor ended with code {supervisor.returncode} and said nothing.")


def stop(directory: DataDirectory) -> bool:
    """Stop the stack of this directory and wait for its end. False if nothing ran."""
    state = load_state(directory)
    if state is None:
        return False
    if not state.is_alive:
        return end_leftovers(directory) > 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(state.supervisor_pid, signal.SIGTERM)
    until = time.monotonic() + STOP_DEADLINE_S
    while state.is_alive and time.monotonic() < until:
        time.sleep(0.1)
    if state.is_alive:
        os.kill(state.supervisor_pid, signal.SIGKILL)
        end_leftovers(directory)
    return True


def stop_detached(directory: DataDirectory, supervisor: subprocess.Popen[bytes]) -> None:
    """Stop a supervisor that this process started, however far it has come, and wait for its end."""
    supervisor.terminate()
    try:
        supervisor.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()
    if running(directory) is None:
        end_leftovers(directory)
