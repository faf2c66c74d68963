"""Batches, for trainers."""

from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request, Response

from services.pool.service.batches import Batches
from shared import arrow
from shared.arrow.lease import write
from shared.contracts.base import Contract
from shared.contracts.batches import BatchAck, BatchLease, BatchLeaseRequest, BatchRelease


class BatchState(Contract):
    """The answer to an acknowledgement."""

    batch_id: UUID
    state: Literal["acknowledged"]


class Released(Contract):
    """How many groups went back to the pool."""

    groups: int


LEASED: dict[int | str, dict[str, Any]] = {
    200: {"content": {arrow.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
}


def create_router(batches: Batches) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/batches", tags=["batches"])

    @router.post("/lease", response_model=BatchLease, responses=LEASED)
    async def lease_batch(body: BatchLeaseRequest, request: Request) -> Any:
        """The batch of (run, step), as an Arrow IPC stream (one row a group, see `shared/arrow`) where `Accept` asks for it."""
        leased = await batches.lease(body)
        if arrow.MEDIA_TYPE in request.headers.get("accept", ""):
            return Response(write(leased), media_type=arrow.MEDIA_TYPE)
        return leased.contract()

    @router.post("/{batch_id}/ack")
    async def acknowledge_batch(batch_id: UUID, body: BatchAck) -> BatchState:
        await batches.acknowledge(batch_id, body)
        return BatchState(batch_id=batch_id, state="acknowledged")

    @router.post("/release")
    async def release_batches(body: BatchRelease) -> Released:
        return Released(groups=await batches.release(body))

    return router
