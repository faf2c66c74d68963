"""The sampling route: a stream of lines, one a prompt, as prompts finish."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from services.generation.api import ServicesDependency
from services.generation.service.fleet import OverloadedError
from shared.contracts.generation import PromptSamples, SampleRequest
from shared.leaving import client_left, until_left
from shared.problems import problem_response

router = APIRouter(tags=["samples"])


@router.post("/v1/samples", response_class=StreamingResponse)
async def sample_prompts(body: SampleRequest, request: Request, services: ServicesDependency) -> Response:
    """n samples for every prompt under one policy, as `application/x-ndjson` lines of `PromptSamples`.

    429 with Retry-After when too many prompts wait already.
    """
    try:
        answers = await services.sampling.start(body)
    except OverloadedError as error:
        response = problem_response(error.problem(), error.status)
        response.headers["Retry-After"] = str(error.retry_after_s)
        return response
    return StreamingResponse(_lines(request, answers), media_type="application/x-ndjson")


async def _lines(request: Request, answers: AsyncGenerator[PromptSamples, None]) -> AsyncIterator[str]:
    """The lines, until the client leaves. A stream that has nothing to send does not notice that by itself."""
    left = asyncio.create_task(client_left(request))
    try:
        while (answer := await until_left(left, _next(answers))) is not None:
            yield f"{answer.model_dump_json(exclude_defaults=True)}\n"
    finally:
        left.cancel()
        await answers.aclose()


async def _next(answers: AsyncGenerator[PromptSamples, None]) -> PromptSamples | None:
    """The next answer; None after the last one."""
    return await anext(answers, None)
