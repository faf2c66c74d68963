"""The data directory: everything Headwater keeps on this machine, and the only place that knows the names inside it.

Invariant: whatever is secret is made once, with mode 0600, and never changes afterwards.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DataDirectory:
    """Paths under one root (`./.headwater` unless told otherwise)."""

    root: Path

    @classmethod
    def at(cls, path: Path) -> DataDirectory:
        """The data directory at an absolute path; nothing is created."""
        return cls(path.expanduser().absolute())

    @property
    def postgres(self) -> Path:
        """Postgres' cluster."""
        return self.root / "postgres"

    @property
    def valkey(self) -> Path:
        """Valkey's append-only file."""
        return self.root / "valkey"

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """The lock and the state of the running stack."""
        return self.root / "run"

    @property
    def models(self) -> Path:
        """Base models made or converted on this machine."""
        return self.root / "models"

    @property
    def artifacts(self) -> Path:
        """Checkpoints, adapters and snapshots."""
        return self.root / "artifacts"

    @property
    def weights_cache(self) -> Path:
        """Copies of policy weights that the engine reads; may be removed while nothing runs."""
        return self.root / "weights-cache"

    @property
    def api_key(self) -> Path:
        """The first API key, written by the gateway's bootstrap."""
        return self.root / "api_key"

    def create(self) -> None:
        """Make the directories; the root is private to its owner."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for folder in (self.valkey, self.logs, self.run, self.models, self.artifacts):
            folder.mkdir(exist_ok=True)

    def secret_file(self, name: str) -> Path:
        """Where a secret of this installation is kept."""
        return self.root / "secrets" / name

    def secret(self, name: str) -> str:
        """A secret of this installation, made at its first use and kept in `secrets/NAME` (0600)."""
        path = self.secret_file(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32))
        return path.read_text()


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 in one step: a reader sees the old text or the new, never half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
