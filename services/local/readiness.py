"""Whether a process can do its work now: one function for each kind of probe. A probe that fails is a "not yet"."""

from __future__ import annotations

import asyncio
import contextlib

from services.local.processes import CommandProbe, HttpProbe, TcpProbe

_ANSWER_DEADLINE_S = 5.0
_INTERVAL_S = 0.2


async def wait_until_ready(probe: HttpProbe | TcpProbe | CommandProbe) -> None:
    """Ask again and again until it is ready; the caller sets the deadline."""
    while not await _answers(probe):
        await asyncio.sleep(_INTERVAL_S)


async def _answers(probe: HttpProbe | TcpProbe | CommandProbe) -> bool:
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(_ANSWER_DEADLINE_S):
            match probe:
                case HttpProbe(port, path):
                    request = f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode()
                    return b" 200 " in await _exchange(port, request)
                case TcpProbe(port, send, expect):
                    return (await _exchange(port, send)).startswith(expect)
                case CommandProbe(command):
                    return await _succeeds(command)
    return False


async def _exchange(port: int, send: bytes) -> bytes:
    """The first line of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(send)
        await writer.drain()
        return await reader.readline()
    finally:
        writer.close()


async def _succeeds(command: tuple[str, ...]) -> bool:
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        return await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
