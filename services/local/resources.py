"""Whether this machine has what the stack takes, said before anything is started."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from services.local.errors import LocalError
from services.local.processes import ProcessSpec

MIN_FREE_DISK_BYTES = 2 << 30
_GIGABYTE = 1 << 30
# Where a container's limit is, in version 2 and 1 of cgroups: its directory, the limit, what is used, and the part of that which are
# files not read lately: the kernel gives it up when somebody asks for memory.
_CGROUPS = (
    (".", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that new processes can have: the machine's, or what is left of this container's limit."""
    import psutil

    available = int(psutil.virtual_memory().available)
    for directory, limit, usage, cached in _CGROUPS:
        path = cgroup / directory
        if (path / limit).exists() and (limit_text := (path / limit).read_text().strip()) != "max":
            counters = dict(line.split() for line in (path / "memory.stat").read_text().splitlines())
            used = int((path / usage).read_text()) - int(counters[cached])
            available = min(available, int(limit_text) - used)
    return available


def check_memory(specs: Iterable[ProcessSpec], available_bytes: int) -> None:
    """Raise LocalError if the processes need more memory than there is."""
    needs = {spec.name: spec.memory_bytes for spec in specs}
    needed_bytes = sum(needs.values())
    if needed_bytes > available_bytes:
        largest = max(needs, key=lambda name: needs[name])
        raise LocalError(
            f"Not enough memory: Headwater needs about {needed_bytes / _GIGABYTE:.1f} GB "
            f"({needs[largest] / _GIGABYTE:.1f} GB of it for {largest}) and {available_bytes / _GIGABYTE:.1f} GB are free. "
            "Close something, or take a smaller model (--model tiny)."
        )


def check_disk(directory: Path, needed_bytes: int = MIN_FREE_DISK_BYTES) -> None:
    """Raise LocalError if the disk of the data directory is as good as full."""
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < needed_bytes:
        raise LocalError(
            f"The disk of {directory} has {free_bytes / _GIGABYTE:.1f} GB free and Headwater wants {needed_bytes / _GIGABYTE:.0f} GB: "
            "free some, or name a directory on another disk with --data-dir."
        )
