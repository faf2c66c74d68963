"""The processes of the worker pool, from the service's side: the parent that forks workers, and one worker."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence

from services.verification.worker import PID_BYTES, READY

START_DEADLINE_S = 60.0
FORK_DEADLINE_S = 10.0


def worker_command(memory_bytes: int) -> tuple[str, ...]:
    """The command of the real parent of workers; the number of its control socket is appended."""
    return (sys.executable, "-m", "services.verification.worker", str(memory_bytes))


class WorkerDiedError(Exception):
    """A process ended without a reply."""


class Worker:
    """One worker process and the connection to it."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self._reader = reader
        self._writer = writer
        self._handle = os.pidfd_open(pid)

    @property
    def alive(self) -> bool:
        """Whether the process has not ended, as far as we heard."""
        return not (self._reader.at_eof() or self._writer.is_closing())

    async def ask(self, check: bytes) -> bytes:
        """One check, however long it takes. Raises: WorkerDiedError."""
        try:
            self._writer.write(check)
            await self._writer.drain()
            line = await self._reader.readline()
        except (ConnectionError, RuntimeError) as error:
            raise WorkerDiedError from error
        if not line.endswith(b"\n"):
            raise WorkerDiedError
        return line

    def pause(self) -> None:
        """Stop it where it is."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._signal(signal.SIGKILL)
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        self._writer.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)


class Parent:
    """The process that has imported everything and forks workers. Its end is theirs."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._turn = asyncio.Lock()

    @classmethod
    async def start(cls, command: Sequence[str]) -> "Parent":
        """Start it and wait until it is warm. Raises: OSError, TimeoutError or WorkerDiedError."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            end = str(theirs.fileno())
            try:
                process = await asyncio.create_subprocess_exec(*command, end, pass_fds=[theirs.fileno()])
            except OSError:
                ours.close()
                raise
        parent = cls(process, ours)
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                await parent._receive(len(READY))
        except BaseException:
            await parent.kill()
            raise
        return parent

    @property
    def alive(self) -> bool:
        """Whether the process has not ended, as far as we heard."""
        return self._process.returncode is None

    async def fork(self) -> Worker:
        """A new worker. Raises: OSError, TimeoutError or WorkerDiedError."""
        ours, theirs = socket.socketpair()
        try:
            async with self._turn, asyncio.timeout(FORK_DEADLINE_S):
                pid = await self._ask_for_one(theirs)
                reader, writer = await asyncio.open_connection(sock=ours)
                return Worker(pid, reader, writer)
        except BaseException:
            ours.close()
            raise

    async def _ask_for_one(self, connection: socket.socket) -> int:
        with connection:
            try:
                socket.send_fds(self._control, [READY], [connection.fileno()])
            except (BrokenPipeError, ConnectionResetError) as error:  # it died, and nobody has told us yet
                raise WorkerDiedError from error
        pid = int.from_bytes(await self._receive(PID_BYTES))
        if not pid:
            raise OSError("a worker cannot be forked now")
        return pid

    async def _receive(self, size_bytes: int) -> bytes:
        received = b""
        while len(received) < size_bytes:
            try:
                part = await asyncio.get_running_loop().sock_recv(self._control, size_bytes - len(received))
            except ConnectionResetError as error:
                raise WorkerDiedError from error
            if not part:
                raise WorkerDiedError
            received += part
        return received

    async def kill(self) -> None:
        """End it, and with it all its workers."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._control.close()
