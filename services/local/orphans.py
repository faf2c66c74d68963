"""No process outlives its supervisor, not even one killed with -9.

Three nets, each for what the one before misses: (1) the kernel signals every direct child when the supervisor dies
(PR_SET_PDEATHSIG); (2) a reaper process waits for the supervisor's end of a pipe to close, and ends every process that
carries this run's mark in its environment, which grandchildren inherit (vLLM's engine core, Celery's pool); (3) the
next start ends what the recorded run left. Limit: Linux (/proc); a process that hides its environment is found by its
session only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

MARK = "HEADWATER_MARK"
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def adopted_by(parent: int, death_signal: signal.Signals) -> Callable[[], None]:
    """What a new child runs before its program: a session of its own, and `death_signal` when `parent` dies."""

    def prepare() -> None:
        os.setsid()
        _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # the parent died before the request was made
            os.kill(os.getpid(), signal.SIGKILL)

    return prepare


def started_at(pid: int) -> str | None:
    """When a process started (clock ticks since boot): with the pid, a name never used twice. None: it's gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def is_alive(pid: int, started: str | None) -> bool:
    """Whether this very process (not a later one with its number) still runs."""
    return started is not None and started_at(pid) == started


def marked(mark: str) -> set[int]:
    """Living processes whose environment carries MARK=`mark`, or a mark that begins with `mark/`; not this one."""
    exact, nested = f"{MARK}={mark}\0".encode(), f"{MARK}={mark}/".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            environment = (entry / "environ").read_bytes()
            if exact in environment or nested in environment:
                found.add(int(entry.name))
    return found


def in_session(leader: int) -> set[int]:
    """Living processes of the session that `leader` began."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if os.getsid(int(entry.name)) == leader:
                found.add(int(entry.name))
    return found


def end(find: Callable[[], Iterable[int]], deadline_s: float, first: signal.Signals = signal.SIGTERM) -> int:
    """Signal what `find` finds, wait, kill what is left at the deadline. Returns how many it found at first."""
    victims = {pid: started_at(pid) for pid in find()}
    for pid in victims:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, first)
    until = time.monotonic() + deadline_s
    while time.monotonic() < until and any(is_alive(pid, started) for pid, started in victims.items()):
        time.sleep(0.05)
    for pid in set(find()) | {pid for pid, started in victims.items() if is_alive(pid, started)}:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return len(victims)


def start_reaper(mark: str) -> subprocess.Popen[bytes]:
    """The process of net (2). Close its standard input to dismiss it after a clean end; it then finds nothing to do."""
    return subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).resolve()), mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={"PATH": os.environ.get("PATH", "")},
    )


def reap(mark: str) -> None:
    """The reaper's life: wait for the supervisor's end, then end everything of its run."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while sys.stdin.buffer.read(4096):
        pass
    end(lambda: marked(mark), deadline_s=2.0)


if __name__ == "__main__":
    reap(sys.argv[1])
