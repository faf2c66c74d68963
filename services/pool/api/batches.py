"""Batches, for trainers."""

from typing import Literal
from uuid import UUID

from fastapi import APIRouter

from services.pool.service.batches import Batches
from shared.contracts.base import Contract
from shared.contracts.batches import BatchAck, BatchLease, BatchLeaseRequest, BatchRelease


class BatchState(Contract):
    """The answer to an acknowledgement."""

    batch_id: UUID
    state: Literal["acknowledged"]


class Released(Contract):
    """How many groups went back to the pool."""

    groups: int


def create_router(batches: Batches) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/batches", tags=["batches"])

    @router.post("/lease")
    async def lease_batch(body: BatchLeaseRequest) -> BatchLease:
        return await batches.lease(body)

    @router.post("/{batch_id}/ack")
    async def acknowledge_batch(batch_id: UUID, body: BatchAck) -> BatchState:
        await batches.acknowledge(batch_id, body)
        return BatchState(batch_id=batch_id, state="acknowledged")

    @router.post("/release")
    async def release_batches(body: BatchRelease) -> Released:
        return Released(groups=await batches.release(body))

    return router
