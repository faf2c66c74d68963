"""Checkpoints: complete or not there, damaged ones passed over, old ones pruned, attempts apart; in a directory and in an object store."""

from pathlib import Path
from uuid import UUID, uuid4

import fsspec
import pytest

from services.training.checkpoints import CheckpointStore, missing_files
from shared.artifacts import HASH_FILE, hash_directory

FILES = ("trainer_state.json", "headwater.json", "optimizer.pt", "scheduler.pt", "model.safetensors")


@pytest.fixture(params=["directory", "object store"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An artifact store of each kind."""
    return str(tmp_path / "artifacts") if request.param == "directory" else f"memory://{uuid4()}"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where checkpoints of an object store are fetched to."""
    return tmp_path / "cache"


def attempt(url: str, fence: int, cache: Path) -> CheckpointStore:
    return CheckpointStore(url, UUID(int=1), fence, cache)


def begin(store: CheckpointStore, text: str) -> Path:
    written = store.clear_staging() / "written"
    written.mkdir()
    for name in FILES:
        (written / name).write_text(text)
    return written


def write(store: CheckpointStore, step: int, text: str | None = None) -> None:
    written = begin(store, text or f"weights of {step}")
    store.prepare(written)
    store.upload(written, step)
    store.commit(written, step)
    store.prune()


def weights(store: CheckpointStore) -> tuple[int, str]:
    """The step and the weights that training would go on from."""
    newest = store.latest()
    assert newest is not None
    return newest.step, (newest.directory / "model.safetensors").read_text()


def test_the_newest_two_are_kept_and_the_newest_is_used(url: str, cache: Path) -> None:
    store = attempt(url, 1, cache)
    assert store.latest() is None
    for step in (9, 10, 100):
        write(store, step)
    assert weights(store) == (100, "weights of 100")
    assert [step for _, step in store._stored()] == [100, 10]
    assert not store.staging.exists()


def test_a_damaged_or_unfinished_checkpoint_is_passed_over(url: str, cache: Path) -> None:
    store = attempt(url, 1, cache)
    for step in (1, 2):
        write(store, step)
    filesystem: fsspec.AbstractFileSystem = store._filesystem
    (newest, _), *_ = store._stored()
    filesystem.pipe_file(f"{newest}/model.safetensors", b"other")
    unfinished = store._place(3)
    filesystem.makedirs(unfinished)
    filesystem.pipe_file(f"{unfinished}/model.safetensors", b"half")
    assert weights(store)[0] == 1


def test_an_upload_that_was_not_committed_is_no_checkpoint(url: str, cache: Path) -> None:
    store = attempt(url, 1, cache)
    write(store, 1)
    written = begin(store, "weights of 2")
    store.prepare(written)
    store.upload(written, 2)
    assert weights(store)[0] == 1
    for _ in range(2):  # the database was silent the first time
        store.commit(written, 2)
    assert weights(store) == (2, "weights of 2")


@pytest.mark.parametrize("name", FILES)
def test_what_lacks_a_file_is_neither_committed_nor_gone_on_from(url: str, cache: Path, name: str) -> None:
    store = attempt(url, 1, cache)
    write(store, 1)
    written = begin(store, "weights of 2")
    (written / name).unlink()
    with pytest.raises(FileNotFoundError, match=name.split(".")[-1] if name.endswith("safetensors") else name[:9]):
        store.prepare(written)
    # A store that some other program copied in part, hash included.
    place = store._place(2)
    store._filesystem.makedirs(place)
    for path in written.iterdir():
        store._filesystem.put_file(str(path), f"{place}/{path.name}")
    store._filesystem.pipe_file(f"{place}/{HASH_FILE}", hash_directory(written).encode())
    assert len(missing_files(written)) == 1
    assert weights(store)[0] == 1


def test_two_attempts_that_write_at_once_do_not_mix_their_files(url: str, cache: Path) -> None:
    """A trainer that was superseded is half-way through its checkpoint while the newer one writes the same step."""
    old, new = attempt(url, 1, cache), attempt(url, 2, cache)
    theirs = begin(old, "of the old")
    ours = begin(new, "of the new")
    theirs.mkdir(parents=True, exist_ok=True)
    (theirs / "optimizer.pt").write_text("of the old, late")
    new.prepare(ours)
    new.upload(ours, 5)
    new.commit(ours, 5)
    new.prune()
    assert weights(new) == (5, "of the new")
    assert {(new.latest().directory / name).read_text() for name in FILES} == {"of the new"}  # type: ignore[union-attr]


def test_an_attempt_removes_what_earlier_ones_left(url: str, cache: Path) -> None:
    old, new = attempt(url, 1, cache), attempt(url, 2, cache)
    begin(old, "killed half-way")
    begin(new, "going on")
    assert not old.staging.exists()
    begin(old, "superseded, not yet ended")
    assert new.staging.exists()


def test_uploads_that_died_go_with_the_next_checkpoint_but_not_those_of_a_newer_attempt(url: str, cache: Path) -> None:
    old, new = attempt(url, 1, cache), attempt(url, 2, cache)
    for store, step in ((old, 1), (new, 2)):
        store._filesystem.makedirs(store._place(step))
        store._filesystem.pipe_file(f"{store._place(step)}/model.safetensors", b"half")
    write(old, 3)
    assert old._places() == [old._place(3), new._place(2)]
    write(new, 3)
    assert new._places() == [new._place(3), old._place(3)]


@pytest.mark.parametrize("kept", [0, 1])
def test_of_a_run_that_is_over_its_files_go_and_what_trackers_wrote_stays(url: str, cache: Path, kept: int) -> None:
    first, last = attempt(url, 1, cache), attempt(url, 2, cache)
    for step in (1, 2):
        write(first, step)
    assert last.latest() is not None
    begin(last, "killed half-way")
    (last.tracker_directory / "events").mkdir(parents=True)
    for _ in range(2):
        attempt(url, 2, cache).prune(kept)
        assert len(last._places()) == kept
    assert [path.name for path in last._staged_in.iterdir() if path.name.startswith(".")] == []
    assert (last.tracker_directory / "events").exists()
    assert not kept or weights(last)[0] == 2


def test_checkpoints_after_a_step_are_discarded(url: str, cache: Path) -> None:
    store = attempt(url, 1, cache)
    for step in (10, 20):
        write(store, step)
    for _ in range(2):
        store.discard_after(10)
        assert weights(store)[0] == 10
    store.discard_after(9)
    assert store.latest() is None


def test_writing_a_step_again_replaces_it(tmp_path: Path) -> None:
    store = attempt(str(tmp_path), 1, tmp_path / "cache")
    write(store, 5, "first")
    write(store, 5, "second")
    assert [step for _, step in store._stored()] == [5]
    assert weights(store) == (5, "second")
