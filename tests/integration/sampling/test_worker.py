"""The Celery worker itself, on a real Valkey: a killed child's questions come back, and SIGTERM ends it early and politely."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from shared.bus import DRAIN_TASK, create_celery, hint
from tests.unit.sampling.fakes import World

pytestmark = pytest.mark.integration
COMMAND = (
    sys.executable,
    "-m",
    "celery",
    "-A",
    "services.sampling.tasks:celery",
    "worker",
    "-Q",
    "sampling",
    "-c",
    "1",
)


@asynccontextmanager
async def served(world: World) -> AsyncIterator[str]:
    """The world's three services behind one address."""
    app = FastAPI()

    async def answered(by: Callable[[httpx.Request], Awaitable[httpx.Response]], request: Request) -> Response:
        answer = await by(httpx.Request(request.method, str(request.url), content=await request.body()))
        return StreamingResponse(answer.aiter_bytes())

    @app.post("/v1/samples")
    async def samples(request: Request) -> Response:
        return await answered(world.generation.answer, request)

    @app.get("/v1/verifiers")
    @app.post("/v1/verdicts")
    async def verdicts(request: Request) -> Response:
        return await answered(world.verification.answer, request)

    app.include_router(world.pool.app().router)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        server.force_exit = True
        await serving


@asynccontextmanager
async def worker(redis_url: str, address: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A prefork worker with one child."""
    environment = os.environ | {
        "HEADWATER_REDIS_URL": redis_url,
        "HEADWATER_POOL_URL": address,
        "HEADWATER_GENERATION_URL": address,
        "HEADWATER_VERIFICATION_URL": address,
        "HEADWATER_SAMPLING_STOP_GRACE_S": "0",
        "HEADWATER_SAMPLING_ANSWERS_IN_FLIGHT": "192",  # 48 questions: some of 200 are left when 100 have landed
    }
    process = await asyncio.create_subprocess_exec(*COMMAND, env=environment, cwd=Path(__file__).parents[3])
    try:
        yield process
    finally:
        for child in children(process.pid):
            os.kill(child, signal.SIGKILL)
        if process.returncode is None:
            process.kill()
            await process.wait()


def children(pid: int) -> list[int]:
    """The living children of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


async def until(world: World, groups: int) -> None:
    """So many groups are stored, and more questions are being worked on."""
    while len(world.pool.groups) < groups or not world.pool.leases:
        await asyncio.sleep(0.02)


async def test_killed_child_then_sigterm(redis_url: str):
    world = World(200)
    held_from = 20
    world.generation.hold = lambda text: len(world.pool.groups) >= held_from
    bus = create_celery("test", redis_url)
    async with served(world) as address, worker(redis_url, address) as process:
        hint(bus, DRAIN_TASK)
        await until(world, 20)
        for child in children(process.pid):
            os.kill(child, signal.SIGKILL)
        assert not world.pool.failures
        world.pool.now = lambda: float("inf")
        held_from = 100
        hint(bus, DRAIN_TASK)
        hint(bus, DRAIN_TASK)
        await until(world, 100)
        world.pool.now = lambda: 0.0
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert not world.pool.leases
    assert {failure.reason for failure in world.pool.failures} == {"worker-ended"}
    assert len(world.pool.groups) + len(world.pool.waiting) == 200
