"""Difficulty of a question and of a campaign."""

from uuid import UUID

from fastapi import APIRouter

from services.pool.service.difficulty import Difficulty
from shared.contracts.difficulty import CampaignDifficulty, QuestionDifficulty


def create_router(difficulty: Difficulty) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["difficulty"])

    @router.get("/questions/{question_id}/difficulty")
    async def get_question_difficulty(question_id: UUID) -> QuestionDifficulty:
        """Its pass rate by policy version, with 95 % intervals, and its moves between pools."""
        return await difficulty.of_question(question_id)

    @router.get("/pools/difficulty")
    async def get_campaign_difficulty(campaign: UUID) -> CampaignDifficulty:
        """How many questions each policy version finds how hard, and how many moved between which pools for which reason."""
        return await difficulty.of_campaign(campaign)

    return router
