"""HTTP in: POST /v1/verdicts, whole or as a stream, and GET /v1/verifiers."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator

from fastapi import APIRouter, Request, Response

from services.verification.service import Verifier
from shared.contracts.reverification import Verifiers
from shared.contracts.verdicts import IdentifiedVerdict, VerdictBatch, VerdictBatchResult
from shared.errors import UnavailableError
from shared.leaving import until_left
from shared.streams import HeldStream

NDJSON = "application/x-ndjson"
# Whoever asks for verdicts reads them as they come.
READER_SILENCE_S = 60.0
_CLIENT_LEFT = 499
Finished = tuple[int, IdentifiedVerdict]
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
        return await _streamed(verifier, batch, request)
    result = await until_left(request.receive, verifier.verdicts(batch))
    if result is None:
        return Response(status_code=_CLIENT_LEFT)
    return Response(result.model_dump_json(), media_type="application/json")


@router.get("/verifiers")
async def get_verifiers(request: Request) -> Verifiers:
    """What judges each kind now, as `name@version`, and how long a check may take where it takes time."""
    verifiers: Verifiers = request.app.state.verifiers
    return verifiers


async def _streamed(verifier: Verifier, batch: VerdictBatch, request: Request) -> Response:
    """Verdicts as lines. Raises: UnavailableError where there is not even the first."""
    finished = verifier.as_finished(batch)
    first = await until_left(request.receive, _next(finished))
    return HeldStream(_lines(first, finished), finished.aclose, NDJSON, READER_SILENCE_S)


async def _next(finished: AsyncGenerator[Finished, None]) -> Finished | None:
    """The next verdict; None after the last one."""
    return await anext(finished, None)


async def _lines(first: Finished | None, finished: AsyncGenerator[Finished, None]) -> AsyncIterator[str]:
    try:
        if first is not None:
            yield f"{first[1].model_dump_json()}\n"
        async for _, item in finished:
            yield f"{item.model_dump_json()}\n"
    except UnavailableError as error:
        log.warning("a stream of verdicts ends early: %s", error)
