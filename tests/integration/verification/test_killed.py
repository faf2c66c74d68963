"""The whole service is killed while workers wait for its verdicts: every question still ends as a whole group, judged rightly."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from services.sampling.client import GenerationClient, PoolClient, VerificationClient
from services.sampling.service.drain import Drain
from shared.contracts.generation import FinishReason, PromptSamples, Sample, SampleRequest
from shared.contracts.verdicts import VerdictOutcome
from tests.unit.sampling.fakes import SETTINGS, World

pytestmark = pytest.mark.integration


class Service:
    """The verification API in a process of its own, killed and started again on its port."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        where = ("services.verification.main:create_app", "--host", "127.0.0.1", "--port", str(self.port))
        environment = os.environ | {"HEADWATER_SERVICE_TOKEN": "", "HEADWATER_VERIFICATION_DEADLINE_S": "1"}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "shared.serve", *where, env=environment
        )

    async def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def until_alive(self) -> None:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as http:
            while True:
                try:
                    if (await http.get("/health/ready")).is_success:
                        return
                except httpx.TransportError:
                    await asyncio.sleep(0.05)


@asynccontextmanager
async def running() -> AsyncIterator[Service]:
    service = Service()
    await service.start()
    try:
        await service.until_alive()
        yield service
    finally:
        await service.kill()


def half_right(request: SampleRequest, id_: str, text: str) -> PromptSamples:
    """The first answer is right, in a form that needs computer algebra; the others are wrong, and of every fourth question one hangs."""
    right = f"\\frac{{{2 * (int(text) + 1)}}}{{2}}"
    wrong = [f"\\frac{{{int(text)}}}{{3}}"] * (request.n - 2)
    answers = [right, *wrong, "x^{9^{9^{9}}}" if int(text) % 4 == 0 else "x"]
    samples = (Sample(text=f"\\boxed{{{answer}}}", finish_reason=FinishReason.STOP) for answer in answers)
    return PromptSamples(id=id_, samples=tuple(samples))


async def test_verdicts_survive_the_service():
    world = World(questions=16, k=4)
    for assignment in world.pool.waiting:  # no plain number, or nothing would be left for the workers
        assert assignment.question.answer.isdigit()
    world.pool.waiting = [
        one.model_copy(
            update={"question": one.question.model_copy(update={"answer": f"\\frac{{{one.question.answer}}}{{1}}"})}
        )
        for one in world.pool.waiting
    ]
    world.generation.line = half_right
    async with (
        running() as service,
        httpx.AsyncClient(transport=httpx.ASGITransport(world.pool.app()), base_url="http://pool") as pool,
        httpx.AsyncClient(transport=httpx.MockTransport(world.generation.answer), base_url="http://gen") as generation,
        httpx.AsyncClient(base_url=service.url, trust_env=False) as verification,
    ):
        clients = PoolClient(pool), GenerationClient(generation), VerificationClient(verification)
        draining = asyncio.create_task(Drain(*clients, SETTINGS, "worker").run())
        for _ in range(2):
            await asyncio.sleep(0.4)
            await service.kill()
            await service.start()
        async with asyncio.timeout(120):
            report = await draining
    assert report.groups["stored"] == 16
    for group in world.pool.groups.values():
        outcomes = [response.verdict.outcome for response in group.responses]
        assert outcomes[:3] == [VerdictOutcome.CORRECT, VerdictOutcome.INCORRECT, VerdictOutcome.INCORRECT]
        assert outcomes[3] is not VerdictOutcome.CORRECT
