"""Snapshots: ordered by key, built in the background under a lease, immutable once they are ready."""

import asyncio
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.pool import identity
from services.pool.builders.recipes import builder_of
from services.pool.hints import Hints
from services.pool.models import SnapshotRow
from services.pool.repository import campaigns, orders, snapshots
from services.pool.service.building import SnapshotBuilding
from services.pool.service.exports import Export, export
from shared.contracts.orders import OrderPurpose
from shared.contracts.snapshots import ExportFormat, Snapshot, SnapshotIn, SnapshotRecipe, SnapshotStatus
from shared.db import Database
from shared.errors import ConflictError, HeadwaterError, NotFoundError


class Snapshots:
    """Ordering, reading and exporting snapshots."""

    def __init__(self, database: Database, hints: Hints, artifacts_url: str) -> None:
        self._database = database
        self._building = SnapshotBuilding(database, hints, artifacts_url)
        self.ordered = asyncio.Event()

    async def create(self, request: SnapshotIn) -> tuple[Snapshot, bool]:
        """The snapshot, and whether it is new.

        Raises: NotFoundError (campaign; an order or a snapshot to mix in that the campaign does not have), HeadwaterError
        `not_trajectories`, `not_answers`, `bad_parameters`, ConflictError (the key has another one).
        """
        builder_of(request)
        snapshot_id, content = identity.snapshot_id(request.campaign_id, request.key), identity.request_hash(request)
        async with self._database.transaction() as session:
            if not await campaigns.exists(session, request.campaign_id):
                raise NotFoundError("campaign", request.campaign_id)
            await _require_sources(session, request)
            created = await snapshots.insert_new(session, snapshot_id, content, request)
            row = await snapshots.get(session, snapshot_id)
            assert row is not None
            if not created and SnapshotIn.model_validate(row.request) != request:
                raise ConflictError(
                    "snapshot_exists",
                    f"Snapshot {request.key!r} exists with other content; order it under another key.",
                )
        if created:
            self.ordered.set()
        return contract(row), created

    async def get(self, snapshot_id: UUID) -> Snapshot:
        """One snapshot. Raises: NotFoundError."""
        async with self._database.transaction() as session:
            row = await snapshots.get(session, snapshot_id)
        if row is None:
            raise NotFoundError("snapshot", snapshot_id)
        return contract(row)

    async def export(self, snapshot_id: UUID, file_format: ExportFormat) -> Export:
        """The rows of a snapshot as a stream. Raises: NotFoundError, ConflictError, HeadwaterError `artifact_missing`."""
        return await export(await self.get(snapshot_id), file_format)

    async def build_next(self) -> bool:
        """Build the oldest snapshot that nobody builds; False when there is none."""
        return await self._building.build_next()


async def _require_sources(session: AsyncSession, request: SnapshotIn) -> None:
    """The orders and the snapshot to mix in are the campaign's own."""
    for order_id in request.order_ids:
        order = await orders.get(session, order_id)
        if order is None or order.campaign_id != request.campaign_id:
            raise NotFoundError("order of this campaign", order_id)
        if order.purpose == OrderPurpose.VERIFY and (
            request.recipe is not SnapshotRecipe.S2R or order_id == request.order_id
        ):
            message = f"Order {order.key!r} has verifications and no answers; only 's2r' takes it, in 'more_order_ids'."
            raise HeadwaterError("not_answers", message, 422)
    if request.replay_snapshot_id is not None:
        replay = await snapshots.get(session, request.replay_snapshot_id)
        if replay is None or replay.campaign_id != request.campaign_id:
            raise NotFoundError("snapshot of this campaign", request.replay_snapshot_id)
        if replay.request["recipe"] == SnapshotRecipe.OFFLINE_RL:
            message = (
                f"Snapshot {replay.key!r} is for offline RL and cannot be mixed into trajectories; name another one."
            )
            raise HeadwaterError("not_trajectories", message, 422)


def contract(row: SnapshotRow) -> Snapshot:
    """The wire form of a snapshot."""
    return Snapshot(
        id=row.id,
        campaign_id=row.campaign_id,
        key=row.key,
        recipe=SnapshotRecipe(row.request["recipe"]),
        status=SnapshotStatus(row.status),
        error=row.error,
        uri=row.uri,
        content_hash=row.content_hash,
        rows=row.rows,
        rounds={int(rounds): count for rounds, count in row.rounds.items()},
        dropped=row.dropped,
        created_at=row.created_at,
    )
