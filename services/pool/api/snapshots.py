"""Snapshots."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from services.pool.service.snapshots import Snapshots
from shared.contracts.snapshots import ExportFormat, Snapshot, SnapshotIn

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_EXPORTED = {
    "description": "The rows.",
    "content": {"application/vnd.apache.parquet": _BINARY, "application/x-ndjson": _BINARY},
}


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

    @router.get("/{snapshot_id}/export", response_class=StreamingResponse, responses={200: _EXPORTED})
    async def export_snapshot(
        snapshot_id: UUID, file_format: Annotated[ExportFormat, Query(alias="format")] = ExportFormat.PARQUET
    ) -> StreamingResponse:
        """The rows as a file that `datasets.load_dataset` reads and TRL trains on; 409 while the snapshot is not ready."""
        export = await snapshots.export(snapshot_id, file_format)
        headers = {"Content-Disposition": f'attachment; filename="{export.name}"'}
        if export.size_bytes is not None:
            headers["Content-Length"] = str(export.size_bytes)
        return StreamingResponse(export.chunks, media_type=export.media_type, headers=headers)

    return router
