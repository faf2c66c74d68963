"""The sampling route: a stream of lines, one a prompt, as prompts finish."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from services.generation.api import ServicesDependency
from services.generation.service.fleet import OverloadedError
from shared.contracts.generation import PromptSamples, SampleRequest
from shared.problems import problem_response
from shared.streams import HeldStream

NDJSON = "application/x-ndjson"
# A sampler that gives a lease back waits for the pool before it reads on, for minutes; an unread stream holds no engine.
READER_SILENCE_S = 900.0
router = APIRouter(tags=["samples"])


@router.post("/v1/samples", response_class=StreamingResponse)
async def sample_prompts(body: SampleRequest, services: ServicesDependency) -> Response:
    """n samples for every prompt under one policy, as `application/x-ndjson` lines of `PromptSamples`.

    429 with Retry-After when too many prompts wait already.
    """
    try:
        answers = await services.sampling.start(body)
    except OverloadedError as error:
        response = problem_response(error.problem(), error.status)
        response.headers["Retry-After"] = str(error.retry_after_s)
        return response
    return HeldStream(_lines(answers), answers.aclose, NDJSON, READER_SILENCE_S)


async def _lines(answers: AsyncIterator[PromptSamples]) -> AsyncIterator[str]:
    async for answer in answers:
        yield f"{answer.model_dump_json(exclude_defaults=True)}\n"
