"""One life of one process: started with its mark, its output read into its log, signalled, and ended with all it began."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from services.local import orphans
from services.local.engine import ROOT
from services.local.errors import LocalError
from services.local.logs import ProcessLog
from services.local.processes import ExitProbe, LogProbe, ProcessSpec
from services.local.readiness import wait_until_ready

_CHUNK_BYTES = 64 << 10


class Child:
    """A started process of a specification. Make it with `start`."""

    def __init__(
        self,
        spec: ProcessSpec,
        process: asyncio.subprocess.Process,
        log: ProcessLog,
        mark: str,
        output: asyncio.StreamReader,
    ) -> None:
        self.spec = spec
        self.pid = process.pid
        self.started = orphans.started_at(process.pid)
        self._process = process
        self._log = log
        self._mark = mark
        self._output = output
        self._has_said = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, spec: ProcessSpec, log: ProcessLog, run_mark: str) -> Child:
        """Start the process in a session of its own; it dies with this one.

        Raises:
            LocalError: its program can't be executed.
        """
        mark = f"{run_mark}/{spec.name}"
        read_end, write_end = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *spec.command,
                cwd=ROOT,
                env=os.environ | spec.environment | {orphans.MARK: mark},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=asyncio.subprocess.STDOUT,
                preexec_fn=orphans.adopted_by(os.getpid(), _signal_of_parents_death(spec)),
            )
        except OSError as error:
            os.close(read_end)
            raise LocalError(f"{spec.name} cannot be started: {spec.command[0]}: {error.strerror}.") from error
        finally:
            os.close(write_end)
        return cls(spec, process, log, mark, await _reader(read_end))

    async def wait(self) -> int:
        """Its exit code (negative: the signal that ended it), once its last words are in the log."""
        code = await self._process.wait()
        with contextlib.suppress(TimeoutError):  # a grandchild may hold the pipe open
            await asyncio.wait_for(asyncio.shield(self._reading), timeout=1)
        return code

    async def until_ready(self) -> None:
        """Return when it is ready.

        Raises:
            LocalError: it ended first, or the deadline passed.
        """
        probe = self.spec.ready
        if isinstance(probe, ExitProbe):
            is_ready = asyncio.create_task(self._wait_for_end())
        elif isinstance(probe, LogProbe):
            is_ready = asyncio.create_task(self._wait_for_words())
        else:
            is_ready = asyncio.create_task(wait_until_ready(probe))
        has_ended = asyncio.create_task(self._process.wait())
        try:
            deadline_s = self.spec.ready_deadline_s
            waits = {is_ready, has_ended}
            done, _ = await asyncio.wait(waits, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise LocalError(f"{self.spec.name} was not ready within {deadline_s:.0f} s.")
            if has_ended in done and (code := has_ended.result()) != 0:
                await self.wait()
                raise LocalError(f"{self.spec.name} ended with {describe_exit(code)} before it was ready.")
            if has_ended in done and not isinstance(probe, ExitProbe):
                raise LocalError(f"{self.spec.name} ended before it was ready.")
        finally:
            is_ready.cancel()
            has_ended.cancel()
            await asyncio.gather(is_ready, has_ended, return_exceptions=True)

    async def stop(self) -> None:
        """Ask it to end, and at its deadline end it and all that it began."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(self.spec.stop_signal)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), self.spec.stop_deadline_s)
        await self.end_descendants()
        await self.wait()
        self._reading.cancel()

    async def end_descendants(self) -> None:
        """End what it left: processes of its session, and those that inherited its mark."""
        await asyncio.to_thread(
            orphans.end, lambda: orphans.marked(self._mark) | orphans.in_session(self.pid), 1.0, signal.SIGTERM
        )

    async def _wait_for_end(self) -> None:
        await self._process.wait()

    async def _wait_for_words(self) -> None:
        await self._has_said.wait()

    async def _read(self) -> None:
        probe = self.spec.ready
        while True:
            chunk = await self._output.read(_CHUNK_BYTES)
            lines = self._log.feed(chunk)
            if isinstance(probe, LogProbe) and any(probe.text in line for line in lines):
                self._has_said.set()
            if not chunk:
                return


async def _reader(descriptor: int) -> asyncio.StreamReader:
    """A stream over the reading end of our own pipe: asyncio's pipes would make `wait` wait for grandchildren too."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(descriptor, "rb", buffering=0))
    return reader


def describe_exit(code: int) -> str:
    """An exit code in words. A SIGKILL that Headwater did not send came most likely from the kernel, for memory."""
    if code == -signal.SIGKILL:
        return "signal SIGKILL (most likely memory ran out: close something, or take a smaller --model)"
    return f"code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def _signal_of_parents_death(spec: ProcessSpec) -> signal.Signals:
    """Postgres ends cleanly by its own stop signal; whatever answers SIGTERM late is killed."""
    return signal.SIGINT if spec.stop_signal is signal.SIGINT else signal.SIGKILL
