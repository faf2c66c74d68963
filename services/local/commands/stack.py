"""`headwater up | down | status | logs`."""

from __future__ import annotations

import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.local.commands.connection import DEFAULT_DATA_DIR, DataDir
from services.local.directory import DataDirectory
from services.local.errors import LocalError
from services.local.rendering import terminal

if TYPE_CHECKING:
    from services.local.stack import UpOptions
    from services.local.state import StackState

Model = Annotated[
    str | None,
    typer.Option(
        "--model", help="tiny, smollm2, a directory, or a hub model. Default: as it last was ready, else tiny."
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="Seed of the tiny model's first weights. Default: as it last was ready, else 0."),
]


def up(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    model: Model = None,
    seed: Seed = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when everything is ready.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Write the logs to files only.")] = False,
) -> None:
    """Start everything and follow the log; Ctrl-C stops it."""
    from services.local.stack import UpOptions, serve

    options = UpOptions(DataDirectory.at(data_dir), model, seed)
    if detach:
        _detach(options)
    else:
        serve(options, None if quiet else sys.stdout)


def _detach(options: UpOptions) -> None:
    from services.local.ports import unusual_ports
    from services.local.stack import start_detached, wait_until_running

    console = terminal()
    supervisor = start_detached(options)
    seen: set[str] = set()

    def show(state: StackState) -> None:
        for process in state.processes.values():
            if process.status in ("ready", "done") and process.name not in seen:
                seen.add(process.name)
                console.print(f"{len(seen):>2} of {len(state.processes)}  {process.name}", highlight=False)

    state = wait_until_running(options.directory, supervisor, show)
    for sentence in unusual_ports(state.ports):
        console.print(sentence, highlight=False)
    console.print(f"Headwater is up: {state.urls['gateway']} (stop it with `headwater down`)", highlight=False)


def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop everything; data stays."""
    from services.local.stack import stop

    directory = DataDirectory.at(data_dir)
    terminal().print("stopped" if stop(directory) else f"Headwater does not run on {directory.root}.", highlight=False)


def status(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """The processes: ports, uptime, restarts, memory."""
    from services.local.rendering import show_status
    from services.local.stack import running
    from services.local.state import load_state

    directory = DataDirectory.at(data_dir)
    state = running(directory)
    if state is None:
        last = load_state(directory)
        reason = f" It stopped because: {last.error}" if last and last.error else ""
        raise LocalError(f"Headwater does not run on {directory.root}.{reason}")
    show_status(terminal(), state, directory)


def logs(
    name: Annotated[str | None, typer.Argument(help="A process; without it, the supervisor's own log.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", help="How many of the last lines.", min=0)] = 50,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """The log of one process."""
    directory = DataDirectory.at(data_dir)
    path = directory.logs / f"{name or 'headwater'}.log"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in directory.logs.glob("*.log"))) or "none yet"
        raise LocalError(f"There is no log of {name or 'headwater'!r} in {directory.logs}; there are: {known}.")
    _print_log(path, lines, follow)


def _print_log(path: Path, count: int, follow: bool) -> None:
    with path.open(errors="replace") as file:
        for line in deque(file, maxlen=count):
            sys.stdout.write(line)
        while follow:
            line = file.readline()
            if line:
                sys.stdout.write(line)
                continue
            sys.stdout.flush()
            time.sleep(0.3)
            if path.stat().st_ino != _inode(file.fileno()):
                _print_log(path, 1 << 20, follow)  # the file was full and a new one began
                return


def _inode(descriptor: int) -> int:
    import os

    return os.fstat(descriptor).st_ino
