"""Assignments, for sampling workers."""

from typing import Literal
from uuid import UUID

from fastapi import APIRouter, Response

from services.pool.service.assignments import Assignments
from shared.contracts.base import Contract
from shared.contracts.orders import AssignmentFailure, ClaimRequest, ClaimResult, LeaseExtension, LeaseRef


class HeldLeases(Contract):
    """The answer to a heartbeat: what is still held, extended. Work on anything else can be stopped."""

    held: tuple[LeaseRef, ...]


class AssignmentState(Contract):
    """The answer to a failure: whether the assignment is tried again."""

    assignment_id: UUID
    state: Literal["open", "dead"]


def create_router(assignments: Assignments) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/assignments", tags=["assignments"])

    @router.post("/claim", response_model=ClaimResult)
    async def claim_assignments(body: ClaimRequest) -> Response:
        return Response(await assignments.claim(body), media_type="application/json")

    @router.post("/heartbeat")
    async def extend_assignments(body: LeaseExtension) -> HeldLeases:
        return HeldLeases(held=tuple(await assignments.extend(body)))

    @router.post("/fail")
    async def fail_assignment(body: AssignmentFailure) -> AssignmentState:
        return AssignmentState(assignment_id=body.assignment_id, state=await assignments.fail(body))

    return router
