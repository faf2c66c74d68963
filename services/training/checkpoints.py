"""Checkpoints of a run: written aside, made durable, put in place under the lease, verified before use, the last two kept until it is over.

A checkpoint is a directory `runs/RUN_ID/checkpoint-STEP-FENCE` of the artifact store with its content hash beside the files.
Each attempt writes, and fetches from a remote store, in directories of its own, so that two trainers of one run never mix their files.
Invariant: whatever `latest` returns was written completely, by a trainer that held the lease when `commit` put it in place.
Limit: an object store has no rename; there the hash file, which is written last, makes a checkpoint complete.
"""

import logging
import os
import re
import shutil
import tempfile
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
_PREFIX, _STAGING, _FETCHED = "checkpoint-", ".writing-", ".fetched-"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: the state after `step` optimiser steps, in a local directory."""

    step: int
    directory: Path


class CheckpointStore:
    """The checkpoints of one run, as its attempt with `fence` sees them. `cache`: of remote stores."""

    def __init__(self, artifacts_url: str, run_id: UUID, fence: int, cache: Path) -> None:
        self._url = f"{artifacts_url.rstrip('/')}/runs/{run_id}"
        self._filesystem, self._root = fsspec.core.url_to_fs(self._url)
        self._is_local, self._fence = _is_local(self._filesystem), fence
        self._staged_in = Path(self._root) if self._is_local else cache / str(run_id)
        self.staging, self._fetched = self._staged_in / f"{_STAGING}{fence}", self._staged_in / f"{_FETCHED}{fence}"

    @property
    def tracker_directory(self) -> Path:
        """Where trackers that write files do so, unless they are told otherwise."""
        return self._staged_in / "tensorboard"

    def clear_staging(self) -> Path:
        """An empty directory to write the next checkpoint in; what earlier attempts left of theirs goes."""
        self._clear_attempts()
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

    def prune(self, kept: int = KEPT) -> int:
        """Remove all but the newest `kept` checkpoints, and what this attempt and those before it left half-way.

        Returns how many checkpoints, complete or not, were removed. What trackers wrote stays.
        """
        self._clear_attempts()
        complete = {path for path, _ in self._stored()}
        unfinished = [path for path in self._places() if path not in complete and _fence(path) <= self._fence]
        removed = sorted(complete, reverse=True)[kept:] + unfinished
        for path in removed:
            self._filesystem.rm(path, recursive=True)
        return len(removed)

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
                directory = fetch_directory(uri, content_hash, self._fetched)
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
        for path in self._places():
            if self._filesystem.exists(f"{path}/{HASH_FILE}"):
                yield path, int(path.rsplit("/", 1)[1].split("-")[1])

    def _places(self) -> list[str]:
        """Where checkpoints are, complete or not, newest first."""
        return [path for path in _names(self._filesystem, self._root) if path.rsplit("/", 1)[1].startswith(_PREFIX)]

    def _clear_attempts(self) -> None:
        """Remove what this attempt and those before it wrote or fetched."""
        for prefix in (_STAGING, _FETCHED):
            for path in self._staged_in.glob(f"{prefix}*"):
                if int(path.name.removeprefix(prefix)) <= self._fence:
                    shutil.rmtree(path, ignore_errors=True)


def _fence(path: str) -> int:
    return int(path.rsplit("-", 1)[1])


def default_cache() -> Path:
    """Where this machine keeps what it has of remote stores."""
    return Path(tempfile.gettempdir()) / "headwater-artifacts"


def runs_with_files(artifacts_url: str, cache: Path) -> list[UUID]:
    """Every run that has files in the store, or on this machine (`cache`)."""
    filesystem, root = fsspec.core.url_to_fs(f"{artifacts_url.rstrip('/')}/runs")
    paths = _names(filesystem, root) + [str(path) for path in ([] if _is_local(filesystem) else cache.glob("*"))]
    names = {path.rsplit("/", 1)[1] for path in paths}
    return [UUID(name) for name in names if _UUID.fullmatch(name)]


def _is_local(filesystem: fsspec.AbstractFileSystem) -> bool:
    protocol = filesystem.protocol
    return "file" in (protocol if isinstance(protocol, tuple) else (protocol,))


def _names(filesystem: fsspec.AbstractFileSystem, root: str) -> list[str]:
    """The paths in a directory, the last by name first; none when it is not there."""
    if not filesystem.exists(root):
        return []
    return sorted((path.rstrip("/") for path in filesystem.ls(root, detail=False)), reverse=True)


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
