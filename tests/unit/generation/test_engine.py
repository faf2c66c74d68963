"""What is no answer of vLLM's is the engine's trouble, by name, and never a stack trace."""

from collections.abc import Awaitable, Callable

import httpx
import pytest

from services.generation.client.engine import EngineClient
from services.generation.client.engine_errors import EngineDownError, EngineRefusedError
from shared.contracts.generation import SamplingParameters

Asked = Callable[[EngineClient], Awaitable[object]]
DEEP = b'{"a":' * 100_000
LOGPROBS = b'"token_ids": [1], "logprobs": {"tokens": ["4"], "token_logprobs": [%s]}'
CHOICE = b'{"choices": [{"index": 0, "text": "%s", "finish_reason": "stop", ' + LOGPROBS + b"}]}"


def client(answer: httpx.Response) -> EngineClient:
    return EngineClient("http://engine", 1, transport=httpx.MockTransport(lambda _: answer))


def complete(engine: EngineClient) -> Awaitable[object]:
    return engine.complete("base", (1,), 1, SamplingParameters(max_tokens=1), 5.0)


@pytest.mark.parametrize(
    ("asked", "content"),
    [
        (EngineClient.label, DEEP),
        (EngineClient.label, b"[]"),
        (EngineClient.tokens_done, b"vllm:prompt_tokens_total many\n"),
        (EngineClient.served, b'{"data": [7]}'),
        (EngineClient.served, b'{"data": [{"id": "base", "parent": null}]}'),
        (lambda engine: engine.prompt_token_ids("hi"), b'{"tokens": ["a"]}'),
        (complete, b'{"choices": 3}'),
        (complete, CHOICE % (b"4", b"null")),
        (complete, CHOICE % (rb"\ud800", b"-0.5")),
        (lambda engine: engine.pass_on("completions", {}, 5.0), b'{"a": NaN}'),
    ],
)
async def test_nonsense_is_refused_with_its_path(asked: Asked, content: bytes) -> None:
    with pytest.raises(EngineRefusedError, match=r"^/\S+ answered") as refused:
        await asked(client(httpx.Response(200, content=content)))
    assert refused.value.status == httpx.codes.BAD_GATEWAY


async def test_a_choice_that_is_one_is_read() -> None:
    assert await complete(client(httpx.Response(200, content=CHOICE % (b"4", b"-0.5"))))


async def test_an_answer_that_cannot_be_decoded_is_an_engine_that_is_down() -> None:
    def rotten(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip"))

    engine = EngineClient("http://engine", 1, transport=httpx.MockTransport(rotten))
    with pytest.raises(EngineDownError, match="DecodingError"):
        await engine.label()


async def test_an_error_of_nonsense_is_still_an_error() -> None:
    with pytest.raises(EngineRefusedError, match="answered 500"):
        await client(httpx.Response(500, content=DEEP)).label()
