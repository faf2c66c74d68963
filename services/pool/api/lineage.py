"""The pool's part of lineage and retraction, for the cascade, which adds runs and policies."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from services.pool.service.lineage import Lineage
from services.pool.service.retraction import Retractions
from shared.contracts.lineage import QuestionUses, RetractedUsesList, RetractManyIn, TrainedOn, TrainedOnRequest


def create_router(lineage: Lineage, retractions: Retractions) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/lineage", tags=["lineage"])

    @router.get("/questions/{question_id}")
    async def get_question_uses(
        question_id: UUID,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[int, Query(ge=0)] = 0,
    ) -> QuestionUses:
        """Its groups, verdicts, snapshots and batches."""
        return await lineage.of_question(question_id, after, limit)

    @router.post("/questions")
    async def list_trained_on(body: TrainedOnRequest) -> TrainedOn:
        """The questions of some snapshots and of the batches of some runs."""
        return await lineage.trained_on(body)

    @router.post("/retractions")
    async def retract_and_list_uses(body: RetractManyIn) -> RetractedUsesList:
        """Leave questions out from now on. Again is harmless."""
        return await retractions.retract(body)

    return router
