"""Full weights to an engine's GPUs over NCCL, in place of files that the engine reads: for engines that share no file system with us.

The sender is a process of its own, since it holds a GPU and may hang in a collective: it is killed at its deadline.
"""

import asyncio
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SENTENCE_BYTES = 500


class TransferFailedError(Exception):
    """The weights were not sent; the text is the sender's own last words."""


@dataclass(frozen=True)
class Transfer:
    """`master_address`: this host, as the engine's workers reach it. `engine_workers`: its tensor × pipeline parallel size."""

    master_address: str
    engine_workers: int
    command: Sequence[str] = (sys.executable, "-m", "services.generation.sender")

    async def send(self, engine_url: str, directory: Path, timeout_s: float) -> None:
        """Replace the engine's full weights by those in `directory`. Raises: TransferFailedError, after `timeout_s` too."""
        options = {
            "--engine": engine_url,
            "--master-address": self.master_address,
            "--master-port": str(_free_port()),
            "--world-size": str(self.engine_workers + 1),
            "--timeout": str(timeout_s),
        }
        arguments = [*self.command, str(directory), *(word for option in options.items() for word in option)]
        process = await asyncio.create_subprocess_exec(
            *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(timeout_s):
                _, said = await process.communicate()
        except TimeoutError as error:
            raise TransferFailedError(f"the sender did not end within {timeout_s:.0f} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            lines = said[-_SENTENCE_BYTES:].decode(errors="replace").strip().splitlines()
            raise TransferFailedError(lines[-1] if lines else f"the sender ended with {process.returncode}")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        port: int = found.getsockname()[1]
    return port
