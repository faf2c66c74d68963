"""Groups: handed in by sampling workers, read by people and the console."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from services.pool.service.groups import Groups
from shared.contracts.base import Contract
from shared.contracts.orders import Group, GroupBatch, GroupBatchResult
from shared.errors import HeadwaterError


class GroupPage(Contract):
    """Some groups; `next` is the cursor of those behind them."""

    items: tuple[Group, ...]
    next: str | None


def create_router(groups: Groups) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/groups", tags=["groups"])

    @router.post("")
    async def store_groups(body: GroupBatch) -> GroupBatchResult:
        return await groups.store(body)

    @router.get("")
    async def list_groups(
        order: UUID | None = None,
        question: UUID | None = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        after: Annotated[int, Query(ge=0)] = 0,
    ) -> GroupPage:
        if order is None and question is None:
            raise HeadwaterError("no_filter", "Groups are listed by 'order' or 'question'; name one of them.", 422)
        found, following = await groups.page(order, question, after, limit)
        return GroupPage.model_construct(items=tuple(found), next=None if following is None else str(following))

    @router.get("/{group_id}")
    async def get_group(group_id: UUID) -> Group:
        return await groups.get(group_id)

    return router
