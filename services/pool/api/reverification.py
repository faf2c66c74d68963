"""Re-verification: ordered by the cascade, executed by sampling workers, read by everybody."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from services.pool.service.orders import Orders
from services.pool.service.reverification import Reverifications
from shared.contracts.listing import MAX_CURSOR_CHARACTERS
from shared.contracts.orders import GroupBatchResult, Order
from shared.contracts.reverification import (
    Flips,
    NewVerdictsBatch,
    ReverifyIn,
    StoredResponsesRequest,
    StoredResponsesResult,
)


def create_router(reverifications: Reverifications, orders: Orders) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["reverification"])

    @router.post("/orders/{order_id}/reverify", responses={201: {"model": Order}})
    async def reverify_order(order_id: UUID, body: ReverifyIn, response: Response) -> Order:
        """201 when the re-verification is new, 200 when it was there, 409 when its key has another order."""
        made, created = await reverifications.create(order_id, body)
        response.status_code = 201 if created else 200
        return await orders.get(made)

    @router.get("/orders/{order_id}/flips")
    async def list_order_flips(
        order_id: UUID,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str | None, Query(min_length=1, max_length=MAX_CURSOR_CHARACTERS)] = None,
    ) -> Flips:
        """The outcomes that a re-verification changed: counted by kind, and one by one."""
        return await reverifications.flips(order_id, after, limit)

    @router.post("/reverifications/responses")
    async def get_stored_responses(body: StoredResponsesRequest) -> StoredResponsesResult:
        """The texts to judge again."""
        return await reverifications.responses(body)

    @router.post("/reverifications/verdicts")
    async def store_verdicts(body: NewVerdictsBatch) -> GroupBatchResult:
        """Take new verdicts. Again is harmless."""
        return await reverifications.store(body)

    return router
