"""What runs leave in the artifact store goes when they are over, and only then."""

from pathlib import Path
from uuid import UUID, uuid4

import pytest

from services.training import repository
from services.training.checkpoints import CheckpointStore
from services.training.leftovers import remove_leftovers
from services.training.settings import TrainingSettings
from shared.contracts.runs import RunFailure
from shared.db import Database
from tests.integration.training import test_runs
from tests.integration.training.test_runs import claim
from tests.unit.training.test_checkpoints import begin, write

pytestmark = pytest.mark.integration


def train(settings: TrainingSettings, run_id: UUID, cache: Path) -> CheckpointStore:
    """Two checkpoints of a run, and half a third."""
    store = CheckpointStore(settings.artifacts_url, run_id, 1, cache)
    for step in (1, 2):
        write(store, step)
    begin(store, "killed half-way")
    return store


def steps(store: CheckpointStore) -> tuple[list[int], bool]:
    """The steps that have a checkpoint, and whether half of another is there."""
    return [step for _, step in store._stored()], store.staging.exists()


@pytest.mark.parametrize("kind", ["directory", "object store"])
async def test_a_run_that_succeeded_keeps_no_checkpoint_and_one_that_did_not_its_newest(
    database: Database, settings: TrainingSettings, tmp_path: Path, kind: str
) -> None:
    if kind == "object store":
        settings = settings.model_copy(update={"artifacts_url": f"memory://{uuid4()}"})
    ends = ("succeeded", "failed", "cancelled", "running", "queued")
    runs = {end: await test_runs.create(database, uuid4()) for end in ends}
    stores = {end: train(settings, run.id, tmp_path / "cache") for end, run in runs.items()}
    foreign = train(settings, uuid4(), tmp_path / "cache")
    for run in (runs["succeeded"], runs["failed"], runs["cancelled"], runs["running"]):
        assert await claim(database, run.id) == 1
    async with database.transaction() as session:
        assert await repository.record_success(session, runs["succeeded"].id, 1, uuid4(), 1, 2, 0)
        assert await repository.record_failure(session, runs["failed"].id, 1, RunFailure.NOT_A_NUMBER, "")
        assert await repository.cancel(session, runs["cancelled"].id)
    await remove_leftovers(settings, runs["failed"].id, cache=tmp_path / "cache")
    assert steps(stores["failed"]) == ([2], False)
    assert steps(stores["succeeded"]) == ([2, 1], True)
    for _ in range(2):
        await remove_leftovers(settings, cache=tmp_path / "cache")
    left = {end: steps(store) for end, store in stores.items()}
    going_on = ([2, 1], True)
    assert left == {
        "succeeded": ([], False),
        "failed": ([2], False),
        "cancelled": ([2], False),
        "running": going_on,
        "queued": going_on,
    }
    assert steps(foreign) == going_on
