"""What a client was answered 2xx for, written down when it was told: the memory that the pool is held against.

Invariant: one file a life of a process, a line a fact, so that a `kill -9` tears the last line of a file at most, and a torn
line is a fact that nobody has acted on. Made by the clients of a fault run, read by the checks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SUFFIX = ".journal"
Fact = dict[str, Any]


class Journal:
    """The journal of one life of one process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path.with_suffix(SUFFIX), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, kind: str, **fact: Any) -> None:
        """Add a fact; it outlives this process from here on."""
        os.write(self._file, json.dumps({"kind": kind, **fact}).encode() + b"\n")


@dataclass
class Tail:
    """Reads what was added to the journals of a directory since the last time."""

    directory: Path
    _read_bytes: dict[Path, int] = field(default_factory=dict)

    def new_facts(self) -> Iterator[Fact]:
        """Facts in whole lines that were not read before."""
        for path in sorted(self.directory.glob(f"*{SUFFIX}")):
            with path.open("rb") as file:
                file.seek(self._read_bytes.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read_bytes[path] = self._read_bytes.get(path, 0) + len(whole) + len(newline)
            yield from (json.loads(line) for line in whole.splitlines())


def facts_of(facts: Iterable[Fact], kind: str) -> Iterator[Fact]:
    """Those of one kind."""
    return (fact for fact in facts if fact["kind"] == kind)


def write_durably(path: Path, content: Any) -> None:
    """JSON that is there whole or not at all after a crash of the machine: file and directory are synced."""
    draft = path.with_suffix(".draft")
    with draft.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Names that were added or removed stay so."""
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
