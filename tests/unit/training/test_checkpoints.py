"""Checkpoints: complete or not there, damaged ones passed over, old ones pruned; in a directory and in an object store."""

from pathlib import Path
from uuid import UUID, uuid4

import fsspec
import pytest

from services.training.checkpoints import CheckpointStore


@pytest.fixture(params=["directory", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CheckpointStore:
    """A store of each kind."""
    url = str(tmp_path / "artifacts") if request.param == "directory" else f"memory://{uuid4()}"
    return CheckpointStore(url, UUID(int=1), tmp_path / "cache")


def write(store: CheckpointStore, step: int) -> None:
    written = store.clear_staging() / "written"
    written.mkdir()
    (written / "weights").write_text(f"weights of {step}")
    store.commit(written, step)


def test_the_newest_two_are_kept_and_the_newest_is_used(store: CheckpointStore) -> None:
    assert store.latest() is None
    for step in (9, 10, 100):
        write(store, step)
    newest = store.latest()
    assert newest is not None
    assert (newest.step, (newest.directory / "weights").read_text()) == (100, "weights of 100")
    assert [step for _, step in store._stored()] == [100, 10]
    assert not store.staging.exists()


def test_a_damaged_or_unfinished_checkpoint_is_passed_over(store: CheckpointStore) -> None:
    for step in (1, 2):
        write(store, step)
    filesystem: fsspec.AbstractFileSystem = store._filesystem
    (newest, _), *_ = store._stored()
    filesystem.pipe_file(f"{newest}/weights", b"other")
    unfinished = f"{store._root}/checkpoint-00000003"
    filesystem.makedirs(unfinished)
    filesystem.pipe_file(f"{unfinished}/weights", b"half")
    found = store.latest()
    assert found is not None
    assert found.step == 1


def test_writing_a_step_again_replaces_it(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path), UUID(int=1), tmp_path / "cache")
    write(store, 5)
    write(store, 5)
    assert [step for _, step in store._stored()] == [5]
