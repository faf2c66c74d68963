"""Verifications of stored answers: ordered by the cascade, asked for by sampling workers, counted for everybody."""

from uuid import UUID

from fastapi import APIRouter, Response

from services.pool.service.orders import Orders
from services.pool.service.verifications import Verifications
from shared.contracts.orders import Order
from shared.contracts.verifications import AnswersRequest, AnswersResult, VerifyIn, Yields


def create_router(verifications: Verifications, orders: Orders) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["verifications"])

    @router.post("/orders/{order_id}/verify", responses={201: {"model": Order}})
    async def verify_order(order_id: UUID, body: VerifyIn, response: Response) -> Order:
        """201 when the order for verifications is new, 200 when it was there, 409 when its key has another order."""
        made, created = await verifications.create(order_id, body)
        response.status_code = 201 if created else 200
        return await orders.get(made)

    @router.get("/orders/{order_id}/yields")
    async def get_order_yields(order_id: UUID) -> Yields:
        """How many verifications came to the truth, by the prompt that asked for them."""
        return await verifications.yields(order_id)

    @router.post("/verifications/answers")
    async def get_answers_to_verify(body: AnswersRequest) -> AnswersResult:
        """The answers to verify, with the truth about each."""
        return await verifications.answers(body)

    return router
