"""What runs that are over leave in the artifact store, removed: disk is bounded by what may still be of use.

A run that succeeded is its policy, and keeps no checkpoint; one that failed or was cancelled keeps its newest. The worker removes, not
the trainer: after each attempt, whatever became of the trainer, and of all runs when it starts, which finishes what died half-way.
"""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from services.training import repository
from services.training.checkpoints import CheckpointStore, default_cache, runs_with_files
from services.training.repository import RunRow
from services.training.settings import TrainingSettings
from shared.contracts.runs import RunState
from shared.db import Database

log = logging.getLogger(__name__)


async def remove_leftovers(settings: TrainingSettings, run_id: UUID | None = None, cache: Path | None = None) -> None:
    """Remove what the run `run_id`, or every run, leaves once it is over; again is harmless.

    Files of runs that this database does not know are left alone. `cache`: of remote stores.
    Raises: OSError when the artifact store does not answer; SQLAlchemyError.
    """
    cache = cache or default_cache()
    run_ids = (
        [run_id] if run_id is not None else await asyncio.to_thread(runs_with_files, settings.artifacts_url, cache)
    )
    database = Database(settings.database_url, pool_size=1)
    try:
        async with database.transaction() as session:
            over = await repository.finished_runs(session, run_ids)
    finally:
        await database.close()
    await asyncio.to_thread(_remove, settings.artifacts_url, cache, over)


def _remove(artifacts_url: str, cache: Path, over: Sequence[RunRow]) -> None:
    for row in over:
        store = CheckpointStore(artifacts_url, row.id, row.fence, cache)
        if removed := store.prune(kept=0 if row.state == RunState.SUCCEEDED else 1):
            log.info("run %s %s: %d checkpoints removed", row.id, row.state, removed)
