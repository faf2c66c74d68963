"""Snapshots."""

from uuid import UUID

from fastapi import APIRouter, Response

from services.pool.service.snapshots import Snapshots
from shared.contracts.snapshots import Snapshot, SnapshotIn


def create_router(snapshots: Snapshots) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/snapshots", tags=["snapshots"])

    @router.post("", responses={201: {"model": Snapshot}})
    async def create_snapshot(body: SnapshotIn, response: Response) -> Snapshot:
        """201 when it is new (it is built in the background), 200 when it was there, 409 when its key has another one."""
        snapshot, created = await snapshots.create(body)
        response.status_code = 201 if created else 200
        return snapshot

    @router.get("/{snapshot_id}")
    async def get_snapshot(snapshot_id: UUID) -> Snapshot:
        return await snapshots.get(snapshot_id)

    return router
