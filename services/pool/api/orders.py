"""Orders."""

from uuid import UUID

from fastapi import APIRouter, Response

from services.pool.service.orders import Orders
from shared.contracts.metrics import OrderMetrics
from shared.contracts.orders import Order, OrderIn, OrderPolicy


def create_router(orders: Orders) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/orders", tags=["orders"])

    @router.post("", responses={201: {"model": Order}})
    async def create_order(body: OrderIn, response: Response) -> Order:
        """201 when it is new, 200 when it was there, 409 when its key has another order."""
        order, created = await orders.create(body)
        response.status_code = 201 if created else 200
        return order

    @router.get("/{order_id}")
    async def get_order(order_id: UUID) -> Order:
        return await orders.get(order_id)

    @router.put("/{order_id}/policy")
    async def set_order_policy(order_id: UUID, body: OrderPolicy) -> Order:
        return await orders.set_policy(order_id, body)

    @router.post("/{order_id}/close")
    async def close_order(order_id: UUID) -> Order:
        return await orders.close(order_id)

    @router.get("/{order_id}/metrics")
    async def get_order_metrics(order_id: UUID) -> OrderMetrics:
        return await orders.metrics(order_id)

    return router
