"""Removing the weights of versions that nobody needs any more; their rows stay, for lineage.

Invariant: no file goes that a policy with kept weights names. A policy is marked first, in a transaction of its own, and from
then on loaded by nobody; its files go after that, and `finish` goes on where a crash, or a store that did not answer, left it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from services.generation.models import PolicyRow
from services.generation.repository import PolicyRepository
from services.generation.service.fleet import Fleet
from services.generation.service.policies import PolicyService
from services.generation.service.weights import WeightsStore
from shared.contracts.policies import Policy, PolicyKind, WeightsState
from shared.db import Database
from shared.errors import ConflictError, NotFoundError

FINISH_EVERY_S = 600.0
log = logging.getLogger(__name__)


class PruningService:
    """Prunes one policy at a time. Which ones it is time for, the trainer that published them knows."""

    def __init__(self, database: Database, fleet: Fleet, weights: WeightsStore, policies: PolicyService) -> None:
        self._database = database
        self._fleet = fleet
        self._weights = weights
        self._policies = policies

    async def prune(self, policy_id: UUID) -> Policy:
        """Have the weights of an intermediate version removed; again is harmless.

        Raises NotFoundError; ConflictError `policy_not_prunable` for what is no intermediate version of a run, `policy_in_use`
        while others need the weights.
        """
        async with self._database.transaction() as session:
            policies = PolicyRepository(session)
            await policies.lock_weights(alone=True)
            row = await policies.get(policy_id)
            if row is None:
                raise NotFoundError("policy", policy_id)
            if row.weights == WeightsState.KEPT:
                await self._require_prunable(policies, row)
                await policies.set_weights(policy_id, WeightsState.PRUNING)
        await self._policies.read(policy_id)  # from now on nobody here takes it for kept
        await self.finish()
        return await self._policies.read(policy_id)

    async def _require_prunable(self, policies: PolicyRepository, row: PolicyRow) -> None:
        newest = None if row.run_id is None else await policies.newest_of_run(row.run_id)
        is_published = row.kind in (PolicyKind.CHECKPOINT, PolicyKind.ADAPTER) and self._weights.is_published(row.uri)
        if newest is None or newest == row.id or not is_published:
            sentence = f"{row.name} is not an intermediate version of a run; only those are pruned."
            raise ConflictError("policy_not_prunable", sentence)
        dependant = await policies.dependant(row.id)
        if dependant is not None:
            raise ConflictError("policy_in_use", f"{dependant} sits on {row.name} or was trained from it.")
        if self._fleet.needs(row.content_hash, str(row.id)):
            raise ConflictError("policy_in_use", f"An engine needs the weights of {row.name} now; ask again later.")

    async def finish(self) -> None:
        """Remove the files of all that are marked. What cannot be removed yet stays marked, for the next time."""
        async with self._database.transaction() as session:
            policies = PolicyRepository(session)
            await policies.lock_weights(alone=True)
            kept = await policies.kept_weights()
            for row in await policies.in_state(WeightsState.PRUNING):
                if self._fleet.needs(row.content_hash, str(row.id)):
                    continue  # asked for just before it was marked
                try:
                    await asyncio.to_thread(self._weights.remove, row.uri, row.content_hash, kept)
                except OSError as error:
                    log.warning("the weights of %s at %s could not be removed: %s", row.name, row.uri, error)
                    continue
                await policies.set_weights(row.id, WeightsState.PRUNED)
                log.info("the weights of %s (version %d) are pruned", row.name, row.version)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Finish what was left, now and then, until the block ends."""
        finishing = asyncio.create_task(self._keep_finishing())
        try:
            yield
        finally:
            finishing.cancel()
            await asyncio.wait((finishing,))

    async def _keep_finishing(self) -> None:
        while True:
            try:
                await self.finish()
            except (SQLAlchemyError, OSError) as error:
                log.warning("no weights are pruned for now: %s", error)
            await asyncio.sleep(FINISH_EVERY_S)
