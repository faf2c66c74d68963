"""HTTP in: lineage both ways, and retraction."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request

from services.cascade.client import Peers
from services.cascade.service.lineage import Lineage
from shared.contracts.lineage import (
    PolicyLineage,
    QuestionLineage,
    RetractIn,
    Retraction,
    Retractions,
    RetractionStatus,
    RetractManyIn,
)
from shared.errors import NotFoundError

router = APIRouter(prefix="/v1", tags=["lineage"])


def _lineage(request: Request) -> Lineage:
    return Lineage(cast("Peers", request.app.state.peers))


Service = Annotated[Lineage, Depends(_lineage)]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/questions/{question_id}/lineage")
async def get_question_lineage(
    question_id: UUID, service: Service, after: Annotated[int, Query(ge=0)] = 0, limit: Limit = 100
) -> QuestionLineage:
    """Who answered it, how it was judged, what took it to train on, and which policies came of that."""
    return await service.of_question(question_id, after, limit)


@router.get("/policies/{policy_id}/lineage")
async def get_policy_lineage(
    policy_id: UUID, service: Service, after: UUID | None = None, limit: Limit = 100
) -> PolicyLineage:
    """Its run and its ancestors' runs, and the questions that they were trained on."""
    return await service.of_policy(policy_id, after, limit)


@router.post("/questions/retract")
async def retract_questions(body: RetractManyIn, service: Service) -> Retractions:
    """Leave up to 1,000 questions out from now on, by id or by source; one answer a question. Again is harmless."""
    return await service.retract(body)


@router.post("/questions/{question_id}/retract")
async def retract_question(question_id: UUID, body: RetractIn, service: Service) -> Retraction:
    """Leave a question out of every order, snapshot and batch from now on, and list the policies it has touched."""
    [retraction] = (await service.retract(RetractManyIn(reason=body.reason, ids=(question_id,)))).items
    if retraction.status is RetractionStatus.NOT_FOUND:
        raise NotFoundError("question", question_id)
    return retraction
