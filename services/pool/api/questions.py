"""Single questions, and pool counts."""

from uuid import UUID

from fastapi import APIRouter

from services.pool.service.questions import Questions
from shared.contracts.questions import PoolCounts, Question


def create_router(questions: Questions) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["questions"])

    @router.get("/questions/{question_id}")
    async def get_question(question_id: UUID) -> Question:
        return await questions.get(question_id)

    @router.get("/pools")
    async def get_pool_counts(campaign: UUID) -> PoolCounts:
        return await questions.counts(campaign)

    return router
