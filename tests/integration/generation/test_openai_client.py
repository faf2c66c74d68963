"""The official `openai` client, unchanged, talks to every kind of policy."""

import json
from collections.abc import AsyncIterator

import openai
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from openai.types.chat import ChatCompletionMessageParam

from shared.contracts.policies import PolicyKind
from tests.integration.generation.conftest import World
from tests.integration.generation.fake_engine import served
from tests.integration.generation.test_api import post_policy

pytestmark = pytest.mark.integration
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def client(world: World) -> AsyncIterator[openai.AsyncOpenAI]:
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(base_url=f"{world.http.base_url}/v1", api_key="a key", http_client=http) as made:
        yield made


def teacher() -> FastAPI:
    """Somebody else's server, with a model of its own."""
    app = FastAPI()

    async def events() -> AsyncIterator[str]:
        for piece in ("fo", "ur"):
            choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
            event = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "big", "choices": [choice]}
            yield f"data: {json.dumps(event)}\n\n"
        yield "data: [DONE]\n\n"

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: dict[str, object]) -> StreamingResponse | JSONResponse:
        if body["model"] != "big":
            return JSONResponse({"error": {"message": "unknown"}}, 404)
        return StreamingResponse(events(), media_type="text/event-stream")

    return app


async def test_models_chat_and_completions(world: World, client: openai.AsyncOpenAI) -> None:
    policy = await world.register("other", PolicyKind.CHECKPOINT)
    assert [model.id async for model in client.models.list()] == [str(policy.id)]
    for model in ("other", str(policy.id)):
        chat = await client.chat.completions.create(model=model, messages=QUESTION)
        assert (chat.model, chat.choices[0].message.content) == (model, "other")
        completion = await client.completions.create(model=model, prompt="hi", max_tokens=4)
        assert (completion.model, completion.choices[0].text) == (model, "other")


async def test_streaming(world: World, client: openai.AsyncOpenAI) -> None:
    await world.register("other", PolicyKind.CHECKPOINT)
    stream = await client.chat.completions.create(model="other", messages=QUESTION, stream=True)
    pieces = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces) == "other"
    assert {chunk.model for chunk in pieces} == {"other"}


async def test_streaming_from_an_external_policy(world: World, client: openai.AsyncOpenAI) -> None:
    async with served(teacher()) as server:
        fields = {"kind": "external", "uri": server.url, "model": "big", "content_hash": ""}
        (await post_policy(world, "teacher", world.directory / "base", **fields)).raise_for_status()
        stream = await client.chat.completions.create(model="teacher", messages=QUESTION, stream=True)
        pieces = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces) == "four"
    assert {chunk.model for chunk in pieces} == {"teacher"}
    with pytest.raises(openai.APIStatusError) as refused:
        await client.with_options(max_retries=0).chat.completions.create(
            model="teacher", messages=QUESTION, stream=True
        )
    assert "external_unavailable" in refused.value.response.text


async def test_errors_are_the_clients_own(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="nobody", messages=QUESTION)
    with pytest.raises(openai.UnprocessableEntityError):
        await client.completions.create(model="nobody", prompt="\0")
