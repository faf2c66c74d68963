"""HTTP in: POST /v1/verdicts, GET /v1/verifiers."""

from fastapi import APIRouter, Response

from services.verification.service import VERIFIERS, Verifier
from shared.contracts.reverification import Verifiers
from shared.contracts.verdicts import VerdictBatch, VerdictBatchResult


def create_router(verifier: Verifier) -> APIRouter:
    """The routes of the service."""
    router = APIRouter(prefix="/v1", tags=["verdicts"])

    @router.post("/verdicts", response_model=VerdictBatchResult)
    async def judge_responses(batch: VerdictBatch) -> Response:
        """Judge a batch of responses; the order is kept. Validated already, so that it is written straight to JSON."""
        result = await verifier.verdicts(batch)
        return Response(result.model_dump_json(), media_type="application/json")

    @router.get("/verifiers")
    async def get_verifiers() -> Verifiers:
        """What judges each kind now, as `name@version`."""
        return Verifiers(verifiers=VERIFIERS)

    return router
