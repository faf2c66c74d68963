"""Lists, for people, the console and generated clients: filters in, a page and its cursor out."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from services.pool.service.listing import Lists
from shared.contracts.listing import (
    AssignmentListing,
    AssignmentPage,
    BatchListing,
    BatchPage,
    EventListing,
    EventPage,
    GroupListing,
    GroupPage,
    OrderListing,
    OrderPage,
    QuestionListing,
    QuestionPage,
    SnapshotListing,
    SnapshotPage,
)


def create_router(lists: Lists) -> APIRouter:
    """The routes."""
    router = APIRouter()

    @router.get("/questions", tags=["questions"])
    async def list_questions(listing: Annotated[QuestionListing, Query()]) -> QuestionPage:
        """Questions of a campaign, page by page: by pool, level, source, kind, split, pass rate, time and text."""
        return await lists.questions(listing)

    @router.get("/question-events", tags=["questions"])
    async def list_question_events(listing: Annotated[EventListing, Query()]) -> EventPage:
        """How questions of a campaign, or one question, went from pool to pool, and why."""
        return await lists.events(listing)

    @router.get("/groups", tags=["groups"])
    async def list_groups(listing: Annotated[GroupListing, Query()]) -> GroupPage:
        """Groups of an order, a question or a policy: by outcome, by where they are on the way to a trainer, by drop reason."""
        return await lists.groups(listing)

    @router.get("/orders", tags=["orders"])
    async def list_orders(listing: Annotated[OrderListing, Query()]) -> OrderPage:
        """Orders of a campaign with their progress."""
        return await lists.orders(listing)

    @router.get("/orders/{order_id}/assignments", tags=["orders"])
    async def list_order_assignments(order_id: UUID, listing: Annotated[AssignmentListing, Query()]) -> AssignmentPage:
        """What an order has left, and what it gave up with the last reason; what is done is in /v1/groups."""
        return await lists.assignments(order_id, listing)

    @router.get("/batches", tags=["batches"])
    async def list_batches(listing: Annotated[BatchListing, Query()]) -> BatchPage:
        """Batches of a run or an order."""
        return await lists.batches(listing)

    @router.get("/snapshots", tags=["snapshots"])
    async def list_snapshots(listing: Annotated[SnapshotListing, Query()]) -> SnapshotPage:
        """Snapshots of a campaign."""
        return await lists.snapshots(listing)

    return router
