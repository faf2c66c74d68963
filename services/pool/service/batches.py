"""Batches: whole groups leased to one step of one run.

Invariant: a group is in at most one live batch; a step has one batch; a smaller fence than seen before changes nothing.
A run that speaks keeps what it leased; the expired batches of others go back to the pool when somebody leases.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.pool import identity
from services.pool.hints import Hints
from services.pool.models import BatchRow
from services.pool.repository import batches, counters, groups, orders
from services.pool.service.rollouts import Rollouts
from shared.arrow.lease import PackedLease
from shared.contracts.batches import BatchAck, BatchLeaseRequest, BatchRelease
from shared.contracts.orders import OrderPurpose
from shared.db import Database
from shared.errors import ConflictError, NotFoundError


class Batches:
    """Leases, acknowledgements and releases."""

    def __init__(self, database: Database, hints: Hints, rollouts: Rollouts) -> None:
        self._database = database
        self._hints = hints
        self._rollouts = rollouts

    async def lease(self, request: BatchLeaseRequest) -> PackedLease:
        """The batch of (run, step), leased now or before; without one when too few groups wait.

        One that was leased before and is too old for the policy that the run has reached is given back and leased anew. An order that is
        `on_demand` makes its assignments here, when too few groups wait.

        Raises: NotFoundError (order), ConflictError `fenced`, `not_standing`, `not_rollout`, `other_order`.
        """
        batch_id = identity.batch_id(request.run_id, request.step)
        async with self._database.transaction() as session:
            await _take_fence(session, request.run_id, request.fence)
            order = await orders.get(session, request.order_id)
            if order is None:
                raise NotFoundError("order", request.order_id)
            if order.watermark_groups is None:
                raise ConflictError("not_standing", f"Order {order.key!r} is finite: its groups are not for batches.")
            if order.purpose != OrderPurpose.ROLLOUT:
                raise ConflictError(
                    "not_rollout", f"Order {order.key!r} is for {order.purpose}: nothing trains on its groups."
                )
            await batches.extend_run(session, request.run_id, request.lease_s)
            batch = await batches.lock(session, batch_id)
            if batch is not None and batch.order_id != request.order_id:
                raise ConflictError("other_order", f"Step {request.step} of this run has a batch of another order.")
            await batches.lock_order(session, request.order_id)
            oldest_version = request.policy_version - request.max_staleness
            held = batch is not None and batch.state != "released"
            if (
                batch is not None
                and batch.state == "leased"
                and await batches.holds_older(session, batch_id, oldest_version)
            ):
                await batches.release(session, [batch_id])
                held = False
            dropped = await self._clear(session, request, oldest_version)
            if not held:
                chosen = await batches.oldest_waiting(session, request.order_id, oldest_version, request.groups)
                leased = list(chosen) if len(chosen) == request.groups else []
                if leased:
                    await batches.lease(session, batch_id, request, chosen)
            else:
                leased = list(await batches.group_ids(session, batch_id))
            waiting = await orders.waiting(session, request.order_id)
            below = waiting + await orders.unfinished(session, request.order_id) < order.watermark_groups
            loaded = await groups.load(session, leased)
            is_on_demand = order.on_demand
        if is_on_demand and not leased:
            await self._rollouts.top_up_order(request.order_id)
        if below and not (is_on_demand and leased):
            self._hints.drain()
        return PackedLease(batch_id if leased else None, loaded, waiting, dropped)

    async def _clear(self, session: AsyncSession, request: BatchLeaseRequest, oldest_version: int) -> int:
        """Take back what expired, then drop what may not be trained on; returns how many were too stale."""
        await batches.release(session, await batches.expired(session, request.order_id))
        stale = await batches.drop_stale(session, request.order_id, oldest_version)
        unusable = await batches.drop_unusable(session, request.order_id)
        deltas = counters.Deltas()
        deltas.add(request.order_id, "dropped:stale", stale)
        deltas.add(request.order_id, f"dropped:{batches.UNUSABLE}", unusable)
        await deltas.write(session)
        return stale

    async def acknowledge(self, batch_id: UUID, request: BatchAck) -> None:
        """The step is in a durable checkpoint. Again is harmless.

        Raises: NotFoundError, ConflictError `fenced`, `other_step`, `batch_lost` (its groups went back to the pool).
        """
        async with self._database.transaction() as session:
            await _take_fence(session, request.run_id, request.fence)
            batch = await batches.lock(session, batch_id)
            if batch is None:
                raise NotFoundError("batch", batch_id)
            if (batch.run_id, batch.step) != (request.run_id, request.step):
                raise ConflictError("other_step", f"Batch {batch_id} is of step {batch.step} of run {batch.run_id}.")
            if batch.state == "released":
                raise ConflictError("batch_lost", f"Batch {batch_id} went back to the pool; lease its step again.")
            if batch.state == "leased":
                await batches.acknowledge(session, batch_id)

    async def release(self, request: BatchRelease) -> int:
        """Give back what the run leased for `from_step` and later; returns how many groups.

        Raises: ConflictError `fenced`.
        """
        async with self._database.transaction() as session:
            await _take_fence(session, request.run_id, request.fence)
            rows: Sequence[BatchRow] = await batches.leased_from(session, request.run_id, request.from_step)
            return await batches.release(session, [row.id for row in rows])


async def _take_fence(session: AsyncSession, run_id: UUID, fence: int) -> None:
    highest = await batches.lock_run(session, run_id, fence)
    if fence < highest:
        raise ConflictError("fenced", f"Run {run_id} goes on under fence {highest}; this is {fence}: stop.")
