"""Checkpoints of a run: written aside, made durable, put in place under the lease, verified before use, the last two kept.

A checkpoint is a directory `runs/RUN_ID/checkpoint-STEP-FENCE` of the artifact store with its content hash beside the files.
Each attempt writes in a staging directory of its own, so that two trainers of one run never mix their files.
Invariant: whatever `latest` returns was written completely, by a trainer that held the lease when `commit` put it in place.
Limit: an object store has no rename; there the hash file, which is written last, makes a checkpoint complete.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import fsspec

from shared.artifacts import HASH_FILE, fetch_directory, hash_directory
from shared.errors import HeadwaterError

log = logging.getLogger(__name__)
KEPT = 2
# What training goes on from; without one of these a directory is no checkpoint, whatever its hash says.
REQUIRED = ("trainer_state.json", "headwater.json", "optimizer*", "scheduler.pt", "*.safetensors")
_PREFIX, _STAGING = "checkpoint-", ".writing-"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: the state after `step` optimiser steps, in a local directory."""

    step: int
    directory: Path


class CheckpointStore:
    """The checkpoints of one run, as its attempt with `fence` sees them. `cache`: where those of a remote store are fetched to."""

    def __init__(self, artifacts_url: str, run_id: UUID, fence: int, cache: Path) -> None:
        self._url = f"{artifacts_url.rstrip('/')}/runs/{run_id}"
        self._filesystem, self._root = fsspec.core.url_to_fs(self._url)
        protocol = self._filesystem.protocol
        self._is_local = "file" in (protocol if isinstance(protocol, tuple) else (protocol,))
        self._cache, self._fence = cache, fence
        self._staged_in = Path(self._root) if self._is_local else cache / str(run_id)
        self.staging = self._staged_in / f"{_STAGING}{fence}"

    @property
    def tracker_directory(self) -> Path:
        """Where trackers that write files do so, unless they are told otherwise."""
        return self._staged_in / "tensorboard"

    def clear_staging(self) -> Path:
        """An empty directory to write the next checkpoint in; what earlier attempts left of theirs goes."""
        for path in self._staged_in.glob(f"{_STAGING}*"):
            if int(path.name.removeprefix(_STAGING)) <= self._fence:
                shutil.rmtree(path, ignore_errors=True)
        self.staging.mkdir(parents=True)
        return self.staging

    def prepare(self, written: Path) -> None:
        """Make `written` (below `staging`) durable with its hash, so that `commit` has next to nothing left to do.

        Raises: FileNotFoundError when a file is missing that training cannot go on without.
        """
        missing = missing_files(written)
        if missing:
            raise FileNotFoundError(f"the checkpoint was written without {', '.join(missing)}")
        (written / HASH_FILE).write_text(hash_directory(written))
        if self._is_local:
            _flush(written)

    def upload(self, written: Path, step: int) -> None:
        """Bring what was prepared to a remote store, incomplete until `commit`; nothing to do in a directory."""
        if self._is_local:
            return
        target = self._place(step)
        for path in sorted(item for item in written.rglob("*") if item.is_file() and item.name != HASH_FILE):
            name = f"{target}/{path.relative_to(written).as_posix()}"
            self._filesystem.makedirs(name.rsplit("/", 1)[0], exist_ok=True)
            self._filesystem.put_file(str(path), name)

    def commit(self, written: Path, step: int) -> None:
        """Make what was prepared the checkpoint of `step`. For whoever holds the lease, and quick; again is harmless."""
        target = self._place(step)
        if not self._is_local:
            self._filesystem.put_file(str(written / HASH_FILE), f"{target}/{HASH_FILE}")
            return
        if written.exists():
            shutil.rmtree(target, ignore_errors=True)
            written.rename(target)
            _flush_one(Path(target).parent)

    def prune(self) -> None:
        """Remove the staging directory and all but the newest checkpoints."""
        shutil.rmtree(self.staging, ignore_errors=True)
        for old, _ in list(self._stored())[KEPT:]:
            self._filesystem.rm(old, recursive=True)

    def discard_after(self, step: int) -> None:
        """Remove the checkpoints of more than `step` steps. For whoever holds the lease; again is harmless."""
        for path, of_step in list(self._stored()):
            if of_step > step:
                self._filesystem.rm(path, recursive=True)

    def latest(self) -> Checkpoint | None:
        """The newest complete and undamaged checkpoint."""
        for path, step in self._stored():
            content_hash = self._filesystem.cat_file(f"{path}/{HASH_FILE}").decode()
            uri = path if self._is_local else f"{self._url}/{path.rsplit('/', 1)[1]}"
            try:
                directory = fetch_directory(uri, content_hash, self._cache)
            except HeadwaterError as error:
                log.warning("checkpoint of step %d is not usable: %s", step, error.message)
                continue
            missing = missing_files(directory)
            if not missing:
                return Checkpoint(step, directory)
            log.warning("checkpoint of step %d is not usable: it is without %s", step, ", ".join(missing))
        return None

    def _place(self, step: int) -> str:
        return f"{self._root}/{_PREFIX}{step:08d}-{self._fence:06d}"

    def _stored(self) -> Iterator[tuple[str, int]]:
        """Complete checkpoints, newest first."""
        if not self._filesystem.exists(self._root):
            return
        for path in sorted(self._filesystem.ls(self._root, detail=False), reverse=True):
            name = path.rstrip("/").rsplit("/", 1)[1]
            if name.startswith(_PREFIX) and self._filesystem.exists(f"{path}/{HASH_FILE}"):
                yield path.rstrip("/"), int(name.removeprefix(_PREFIX).split("-")[0])


def missing_files(directory: Path) -> list[str]:
    """Which of the files that every checkpoint has are not there."""
    return [pattern for pattern in REQUIRED if not any(directory.glob(pattern))]


def _flush(directory: Path) -> None:
    for path in directory.rglob("*"):
        _flush_one(path)
    _flush_one(directory)


def _flush_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
