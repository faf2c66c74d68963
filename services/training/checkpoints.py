"""Checkpoints of a run: written aside, renamed into place, verified before use, the last two kept.

A checkpoint is a directory `runs/RUN_ID/checkpoint-STEP` of the artifact store with its content hash beside the files.
Invariant: whatever `latest` returns was written completely. Limit: an object store has no rename; there the hash file,
which is written last, makes a checkpoint complete.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import fsspec

from shared.artifacts import HASH_FILE, fetch_directory, hash_directory, publish_directory
from shared.errors import HeadwaterError

log = logging.getLogger(__name__)
KEPT = 2
_PREFIX = "checkpoint-"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: the state after `step` optimiser steps, in a local directory."""

    step: int
    directory: Path


class CheckpointStore:
    """The checkpoints of one run. `cache` is where checkpoints of a remote store are fetched to."""

    def __init__(self, artifacts_url: str, run_id: UUID, cache: Path) -> None:
        self._url = f"{artifacts_url.rstrip('/')}/runs/{run_id}"
        self._filesystem, self._root = fsspec.core.url_to_fs(self._url)
        protocol = self._filesystem.protocol
        self._is_local = "file" in (protocol if isinstance(protocol, tuple) else (protocol,))
        self._cache = cache / str(run_id)
        self.staging = Path(self._root) / ".writing" if self._is_local else self._cache / "writing"

    def clear_staging(self) -> Path:
        """An empty directory to write the next checkpoint in."""
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir(parents=True)
        return self.staging

    def commit(self, written: Path, step: int) -> None:
        """Make `written` (below `staging`) the checkpoint of `step`, durably, and prune older ones."""
        name = f"{_PREFIX}{step:08d}"
        if self._is_local:
            (written / HASH_FILE).write_text(hash_directory(written))
            _flush(written)
            target = Path(self._root) / name
            shutil.rmtree(target, ignore_errors=True)
            written.rename(target)
            _flush_one(target.parent)
        else:
            publish_directory(written, self._url, name)
        shutil.rmtree(self.staging, ignore_errors=True)
        for old, _ in list(self._stored())[KEPT:]:
            self._filesystem.rm(old, recursive=True)

    def latest(self) -> Checkpoint | None:
        """The newest complete and undamaged checkpoint."""
        for path, step in self._stored():
            content_hash = self._filesystem.cat_file(f"{path}/{HASH_FILE}").decode()
            uri = path if self._is_local else f"{self._url}/{path.rsplit('/', 1)[1]}"
            try:
                return Checkpoint(step, fetch_directory(uri, content_hash, self._cache))
            except HeadwaterError as error:
                log.warning("checkpoint of step %d is not usable: %s", step, error.message)
        return None

    def _stored(self) -> Iterator[tuple[str, int]]:
        """Complete checkpoints, newest first."""
        if not self._filesystem.exists(self._root):
            return
        for path in sorted(self._filesystem.ls(self._root, detail=False), reverse=True):
            name = path.rstrip("/").rsplit("/", 1)[1]
            if name.startswith(_PREFIX) and self._filesystem.exists(f"{path}/{HASH_FILE}"):
                yield path.rstrip("/"), int(name.removeprefix(_PREFIX).split("-")[0])


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
