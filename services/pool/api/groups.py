"""Groups: handed in by sampling workers, read by people and the console."""

from uuid import UUID

from fastapi import APIRouter, Request

from services.pool.api import bodies
from services.pool.service.groups import Groups
from shared.contracts.orders import Group, GroupBatchResult


def create_router(groups: Groups) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/groups", tags=["groups"])

    @router.post("")
    async def store_groups(request: Request) -> GroupBatchResult:
        """Groups as JSON or as an Arrow IPC stream (one row a group, see `shared/arrow`), as they are or gzip.

        All of a request is stored, or nothing; the receipts say of each group whether it was stored, late, a duplicate or refused.
        """
        return await groups.store(bodies.groups(request))

    @router.get("/{group_id}")
    async def get_group(group_id: UUID) -> Group:
        return (await groups.get(group_id)).contract()

    return router
