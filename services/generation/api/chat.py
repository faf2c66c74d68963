"""OpenAI-compatible routes: talk to any policy version."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from services.generation.api import Services, ServicesDependency
from services.generation.client.external import CHAT
from services.generation.service.chat import COMPLETIONS
from services.generation.service.chat_stream import ChatStream
from services.generation.service.fleet import OverloadedError
from shared.contracts.policies import PolicyKind
from shared.leaving import until_left
from shared.problems import problem_response
from shared.streams import HeldStream

router = APIRouter(tags=["chat"])
EVENTS = "text/event-stream"
READER_SILENCE_S = 60.0  # an answer that nobody reads holds a place in the engine, and its weights there
_CLIENT_LEFT = 499


@router.post("/v1/chat/completions")
async def create_chat_completion(body: dict[str, Any], request: Request, services: ServicesDependency) -> Response:
    """`model` is a policy id, or the name of a policy when only one campaign uses it. `stream` is supported."""
    return await _pass_on(CHAT, body, request, services)


@router.post("/v1/completions")
async def create_completion(body: dict[str, Any], request: Request, services: ServicesDependency) -> Response:
    """As chat, of a `prompt` as it stands: without the model's chat template."""
    return await _pass_on(COMPLETIONS, body, request, services)


async def _pass_on(endpoint: str, body: dict[str, Any], request: Request, services: Services) -> Response:
    try:
        if body.get("stream"):
            stream = await until_left(request.receive, services.chat.stream(endpoint, body))
            return _left() if stream is None else _held(stream)
        answer = await until_left(request.receive, services.chat.complete(endpoint, body))
        return _left() if answer is None else JSONResponse(answer)
    except OverloadedError as error:
        response = problem_response(error.problem(), error.status)
        response.headers["Retry-After"] = str(error.retry_after_s)
        return response


def _held(stream: ChatStream) -> Response:
    return HeldStream(stream.events(), stream.close, EVENTS, READER_SILENCE_S)


def _left() -> Response:
    return Response(status_code=_CLIENT_LEFT)


@router.get("/v1/models")
async def list_models(services: ServicesDependency) -> dict[str, Any]:
    """Every policy one can talk to."""
    policies = await services.policies.listed(None)
    data = [
        {
            "id": str(policy.id),
            "object": "model",
            "created": int(policy.created_at.timestamp()),
            "owned_by": f"campaign {policy.campaign_id}",
            "name": policy.name,
            "live": policy.live,
        }
        for policy in policies
        if policy.kind is not PolicyKind.REFERENCE
    ]
    return {"object": "list", "data": data}
