"""Engines that die, hang or only pretend to live, and teachers that are slow, full, broken or cut off: all ends in a named error."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import openai
import pytest

from services.generation.main import create_app
from shared.contracts.generation import PromptSamples
from shared.contracts.policies import Policy, PolicyKind
from tests.integration.generation.conftest import CAMPAIGN, World, make_settings, write_weights
from tests.integration.generation.fake_engine import FakeEngine, served

pytestmark = pytest.mark.integration
IMPATIENT: dict[str, object] = {"engine_stall_s": 0.3, "engine_abort_s": 0.2, "engine_wait_s": 0.5}


class Process:
    """The stand-in engine in a process of its own, which can be stopped, killed and started again on its port."""

    def __init__(self, weights: Path) -> None:
        self._weights = weights
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = (sys.executable, "-m", "tests.integration.generation.fake_engine", str(self._weights), str(self.port))
        self._process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(await self._process.stdout.readline())

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    async def end(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def with_process(database_url: str, directory: Path) -> AsyncIterator[tuple[World, Process]]:
    """A generation service whose engine is a process."""
    base = write_weights(directory / "base", "base")
    process = Process(base)
    await process.start()
    settings = make_settings(
        database_url, f"http://127.0.0.1:{process.port}", base, directory, IMPATIENT | {"engine_stall_s": 60.0}
    )
    try:
        async with (
            served(create_app(settings)) as api,
            httpx.AsyncClient(base_url=api.url, timeout=60, trust_env=False) as http,
        ):
            world = World(http, FakeEngine(str(base)), api, directory)
            await world.until_ready()
            yield world, process
    finally:
        await process.end()


async def streamed(world: World, policy: Policy, begun: asyncio.Event) -> tuple[list[str], str | None]:
    """What an OpenAI client sees of a streamed chat: the pieces, and the code of the error that ends it."""
    http, url = openai.DefaultAsyncHttpxClient(trust_env=False), f"{world.http.base_url}/v1"
    pieces: list[str] = []
    async with openai.AsyncOpenAI(base_url=url, api_key="a key", http_client=http, max_retries=0) as client:
        chat = await client.chat.completions.create(
            model=str(policy.id), messages=[{"role": "user", "content": "hi"}], stream=True
        )
        try:
            async for chunk in chat:
                pieces.append(chunk.choices[0].delta.content or "")
                begun.set()
        except openai.APIError as error:
            return pieces, error.code
    return pieces, None


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
async def test_an_engine_lost_in_the_middle_answers_each_prompt_by_name(
    database_url: str, tmp_path: Path, fault: signal.Signals
):
    async with with_process(database_url, tmp_path) as (world, process):
        base = await world.register("base", PolicyKind.BASE)
        prompts = [f"slow {number}" for number in range(63)]
        begun = asyncio.Event()
        chat = asyncio.create_task(streamed(world, base, begun))
        await begun.wait()
        asked = asyncio.create_task(world.sample(base, *prompts, n=8))
        await asyncio.sleep(0.3)
        process.signal(fault)
        async with asyncio.timeout(40):
            lines = await asked
            pieces, error = await chat
        assert (pieces, error) == (["b"], "engine_down")
        errors = {line.error for line in lines.values()}
        assert errors <= {None, "engine-down"}
        assert "engine-down" in errors
        assert all(len(line.samples) == (0 if line.error else 8) for line in lines.values())
        if fault is signal.SIGSTOP:
            process.signal(signal.SIGCONT)
        else:
            await process.end()
            await process.start()
        async with asyncio.timeout(40):
            await world.until_ready()
            again = await world.sample(base, *[f"quick {number}" for number in range(64)], n=8)
        assert all(line.error is None and len(line.samples) == 8 for line in again.values())


@pytest.mark.parametrize("overrides", [IMPATIENT])
async def test_an_engine_that_answers_probes_and_works_on_nothing_is_given_up(world: World):
    base = await world.register("base", PolicyKind.BASE)
    world.engine.hold.clear()
    begun = asyncio.Event()
    asked = asyncio.gather(world.sample(base, "a", "b"), streamed(world, base, begun))
    while world.engine.running < 3 or not begun.is_set():
        world.engine.tokens += 1
        await asyncio.sleep(0.01)
    async with asyncio.timeout(20):
        lines, chat = await asked
    assert {line.error for line in lines.values()} == {"engine-down"}
    assert "worked on none" in lines["a"].message
    assert chat == (["b"], "engine_down")
    while world.engine.aborted < 3:
        await asyncio.sleep(0.01)
    world.engine.hold.set()
    await world.until_ready()
    assert await world.text(base) == "base"


@pytest.mark.parametrize("overrides", [IMPATIENT])
async def test_an_engine_that_moves_on_is_waited_for(world: World):
    base = await world.register("base", PolicyKind.BASE)
    world.engine.hold.clear()
    asked = asyncio.create_task(world.text(base))
    for _ in range(12):
        await asyncio.sleep(0.1)
        world.engine.tokens += 1
    assert not asked.done()
    world.engine.hold.set()
    assert await asked == "base"


@asynccontextmanager
async def teacher(*answers: bytes) -> AsyncIterator[tuple[str, list[int]]]:
    """A server that answers its connections with these bytes, in turn, and the last one from then on; which ones it gave."""
    given: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0
        )
        await reader.readexactly(length)
        number = min(len(given), len(answers) - 1)
        given.append(number)
        writer.write(answers[number])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", given


def http(status: int, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (
        status,
        size,
        body,
    )


COMPLETION = json.dumps({"choices": [{"message": {"content": "\\boxed{2}"}, "finish_reason": "stop"}]}).encode()


async def ask_teacher(world: World, url: str, **fields: object) -> tuple[str | None, list[str]]:
    body = {"campaign_id": str(CAMPAIGN), "name": "teacher", "kind": "external", "uri": url, "model": "big"}
    policy = (await world.http.post("/v1/policies", json=body)).raise_for_status().json()
    request = {"policy_id": policy["id"], "prompts": [{"id": "1", "text": "1 + 1"}], "n": 2, **fields}
    answer = (await world.http.post("/v1/samples", json=request)).raise_for_status()
    line = PromptSamples.model_validate_json(answer.content)
    return line.error, [sample.text for sample in line.samples]


async def test_a_teacher_that_is_full_is_asked_again(world: World):
    async with teacher(http(429, b"{}"), http(200, COMPLETION)) as (url, given):
        assert await ask_teacher(world, url) == (None, ["\\boxed{2}"] * 2)
        assert given == [0, 1, 1]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http(500, b"oops"), "external-refused"),
        (http(200, COMPLETION[:20], len(COMPLETION)), "external-unavailable"),
        (http(200, COMPLETION[:20]), "external-invalid-answer"),
        (http(200, b'{"choices": []}'), "external-invalid-answer"),
        (http(200, COMPLETION.replace(b"stop", b"content_filter")), "external-refused"),
        (b"", "external-unavailable"),
    ],
)
async def test_a_teacher_that_fails_is_named_and_gives_no_sample(world: World, answer: bytes, error: str):
    async with teacher(answer) as (url, _):
        assert await ask_teacher(world, url) == (error, [])


async def test_a_teacher_that_is_slow_or_always_full_ends_at_the_deadline(world: World):
    async with teacher(http(503, b"{}")) as (url, given):
        assert await ask_teacher(world, url, deadline_s=1.5) == ("deadline", [])
        assert len(given) == 2
