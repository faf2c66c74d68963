"""Groups: handed in by sampling workers, read by people and the console."""

from uuid import UUID

from fastapi import APIRouter

from services.pool.service.groups import Groups
from shared.contracts.orders import Group, GroupBatch, GroupBatchResult


def create_router(groups: Groups) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/groups", tags=["groups"])

    @router.post("")
    async def store_groups(body: GroupBatch) -> GroupBatchResult:
        return await groups.store(body)

    @router.get("/{group_id}")
    async def get_group(group_id: UUID) -> Group:
        return await groups.get(group_id)

    return router
