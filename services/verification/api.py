"""HTTP in: POST /v1/verdicts, whole or as a stream, and GET /v1/verifiers."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from services.verification.service import Verifier
from shared.contracts.reverification import Verifiers
from shared.contracts.verdicts import IdentifiedVerdict, VerdictBatch, VerdictBatchResult
from shared.errors import UnavailableError

NDJSON = "application/x-ndjson"
log = logging.getLogger(__name__)


router = APIRouter(prefix="/v1", tags=["verdicts"])


@router.post("/verdicts", response_model=VerdictBatchResult)
async def judge_responses(batch: VerdictBatch, request: Request) -> Response:
    """Judge a batch of responses.

    The answer is one JSON document in the order of the batch; with `Accept: application/x-ndjson`, one line a verdict as
    they come. A stream that ends early lacks what could not be judged: ask again for those.
    """
    verifier: Verifier = request.app.state.verifier
    if NDJSON in request.headers.get("accept", ""):
        return await _streamed(verifier, batch)
    result = await verifier.verdicts(batch)
    return Response(result.model_dump_json(), media_type="application/json")


@router.get("/verifiers")
async def get_verifiers(request: Request) -> Verifiers:
    """What judges each kind now, as `name@version`, and how long a check may take where it takes time."""
    verifiers: Verifiers = request.app.state.verifiers
    return verifiers


async def _streamed(verifier: Verifier, batch: VerdictBatch) -> Response:
    """Verdicts as lines. Raises: UnavailableError where there is not even the first."""
    finished = verifier.as_finished(batch)
    first = await anext(finished, None)
    return StreamingResponse(_lines(first, finished), media_type=NDJSON)


async def _lines(
    first: tuple[int, IdentifiedVerdict] | None, finished: AsyncGenerator[tuple[int, IdentifiedVerdict], None]
) -> AsyncIterator[str]:
    try:
        if first is not None:
            yield f"{first[1].model_dump_json()}\n"
        async for _, item in finished:
            yield f"{item.model_dump_json()}\n"
    except UnavailableError as error:
        log.warning("a stream of verdicts ends early: %s", error)
    finally:
        await finished.aclose()
