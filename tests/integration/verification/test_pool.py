"""Real worker processes that hang, crash, eat memory and are killed: only their own check pays."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from fastapi import FastAPI

from services.verification.api import router
from services.verification.cache import Cache
from services.verification.kinds.judgement import Check
from services.verification.main import create_app
from services.verification.pool import WorkerPool
from services.verification.processes import worker_command
from services.verification.service import Verifier
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import (
    IdentifiedVerdict,
    UnscoredReason,
    VerdictBatch,
    VerdictBatchResult,
    VerdictOutcome,
    VerdictRequest,
)
from shared.errors import UnavailableError

pytestmark = pytest.mark.integration
MEMORY_BYTES = 1 << 30
BROKEN = (sys.executable, str(Path(__file__).with_name("broken_worker.py")), str(MEMORY_BYTES))
MATH = QuestionKind.MATH


@asynccontextmanager
async def workers(
    command: tuple[str, ...] = BROKEN, size: int = 2, deadline_s: float = 30.0
) -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(command, size, deadline_s)
    pool.start()
    try:
        yield pool
    finally:
        await pool.close()


async def test_twenty_items_of_which_two_hang():
    async with workers(deadline_s=3.0) as pool:
        answers = [f"hang {i}" if i in (3, 11) else f"x{i % 4}" for i in range(20)]
        items = tuple(
            VerdictRequest(id=str(i), kind=MATH, reference="x1", response=f"\\boxed{{{answer}}}")
            for i, answer in enumerate(answers)
        )
        verifier = Verifier({MATH: pool}, Cache(100))
        result = await verifier.verdicts(VerdictBatch(items=items))
        assert [item.id for item in result.items] == [str(i) for i in range(20)]
        for answer, item in zip(answers, result.items, strict=True):
            if answer.startswith("hang"):
                assert item.verdict.unscored_reason is UnscoredReason.TIMEOUT
            else:
                assert (item.verdict.outcome is VerdictOutcome.CORRECT) == (answer == "x1")
                assert item.verdict.outcome is not VerdictOutcome.UNSCORED
        after = [await pool.judge(Check(MATH, "y", "y")) for _ in range(4)]
        assert {judgement.outcome for judgement in after} == {VerdictOutcome.CORRECT}


async def test_input_that_math_verify_hangs_on():
    async with workers(worker_command(MEMORY_BYTES), size=1, deadline_s=5.0) as pool:
        hung = await pool.judge(Check(MATH, r"\frac{x}{3}", "9^{9^{9}}"))
        assert hung.reason is UnscoredReason.TIMEOUT
        assert (await pool.judge(Check(MATH, r"\frac{x}{3}", "x/3"))).outcome is VerdictOutcome.CORRECT
        await pool.check()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("crash", UnscoredReason.VERIFIER_CRASHED),
        ("raise", UnscoredReason.VERIFIER_CRASHED),
        ("memory", UnscoredReason.MEMORY),
        ("swallow", UnscoredReason.MEMORY),
    ],
)
async def test_a_broken_check_is_unscored_and_the_others_go_on(answer: str, reason: UnscoredReason):
    async with workers() as pool:
        checks = [pool.judge(Check(MATH, "x", item)) for item in ("x", answer, "x", "y", "x")]
        judgements = await asyncio.gather(*checks)
        assert judgements[1].reason is reason
        assert [j.outcome for j in judgements if j.reason is None] == ["correct", "correct", "incorrect", "correct"]


async def test_output_of_a_library_is_not_a_reply():
    async with workers(size=1) as pool:
        assert (await pool.judge(Check(MATH, "noise", "noise"))).outcome is VerdictOutcome.CORRECT
        assert (await pool.judge(Check(MATH, "x", "y"))).outcome is VerdictOutcome.INCORRECT


async def test_workers_killed_at_work_and_idle():
    async with workers(size=2) as pool:
        await pool.judge(Check(MATH, "x", "x"))
        hanging = asyncio.create_task(pool.judge(Check(MATH, "x", "hang")))
        others = [asyncio.create_task(pool.judge(Check(MATH, "x", "x"))) for _ in range(3)]
        await asyncio.gather(*others)
        while not hanging.done():  # the one that hangs, its second try, and whoever is idle
            for process_id in pool.process_ids():
                os.kill(process_id, signal.SIGKILL)
            await asyncio.sleep(0.05)
        assert (await hanging).reason is UnscoredReason.VERIFIER_CRASHED
        assert (await pool.judge(Check(MATH, "x", "x"))).outcome is VerdictOutcome.CORRECT


async def test_the_parent_of_the_workers_is_killed_and_started_again():
    async with workers(size=2) as pool:
        await pool.judge(Check(MATH, "x", "x"))
        hanging = asyncio.create_task(pool.judge(Check(MATH, "x", "hang")))
        await asyncio.sleep(0.05)
        parents = {psutil.Process(process_id).ppid() for process_id in pool.process_ids()}
        assert len(parents) == 1
        os.kill(parents.pop(), signal.SIGKILL)
        assert (await pool.judge(Check(MATH, "x", "x"))).outcome is VerdictOutcome.CORRECT
        hanging.cancel()


async def test_those_that_hang_step_aside_and_still_end():
    async with workers(size=1, deadline_s=1.0) as pool:
        hanging = [asyncio.create_task(pool.judge(Check(MATH, "x", f"hang {n}"))) for n in range(4)]
        await asyncio.sleep(0)
        quick = [asyncio.create_task(pool.judge(Check(MATH, "x", "x"))) for _ in range(20)]
        assert {judgement.outcome for judgement in await asyncio.gather(*quick)} == {VerdictOutcome.CORRECT}
        assert not any(task.done() for task in hanging)  # each had a slice, and waits for the rest of its second
        ended = await asyncio.gather(*hanging)
        assert {judgement.reason for judgement in ended} == {UnscoredReason.TIMEOUT}
        assert len(pool.process_ids()) <= 2
        assert (await pool.judge(Check(MATH, "x", "x"))).outcome is VerdictOutcome.CORRECT


async def test_one_that_is_slow_goes_on_where_it_was():
    async with workers(size=1) as pool:
        slow = asyncio.create_task(pool.judge(Check(MATH, "slow", "slow")))
        await asyncio.sleep(0)
        assert (await pool.judge(Check(MATH, "x", "x"))).outcome is VerdictOutcome.CORRECT
        assert not slow.done()
        judgement = await slow
        assert judgement.outcome is VerdictOutcome.CORRECT
        assert judgement.milliseconds >= 500


async def test_a_caller_that_leaves_takes_no_worker_with_it():
    async with workers(size=1) as pool:
        await pool.judge(Check(MATH, "x", "x"))
        at_work = asyncio.create_task(pool.judge(Check(MATH, "x", "hang")))
        waiting = asyncio.create_task(pool.judge(Check(MATH, "x", "x")))
        await asyncio.sleep(0.05)
        at_work.cancel()
        waiting.cancel()
        await asyncio.gather(at_work, waiting, return_exceptions=True)
        assert (await pool.judge(Check(MATH, "x", "x"))).outcome is VerdictOutcome.CORRECT


async def test_workers_that_cannot_start_refuse_instead_of_hanging():
    async with workers((sys.executable, "-c", "raise SystemExit(1)")) as pool:
        with pytest.raises(UnavailableError, match="No verification worker can be started"):
            await pool.judge(Check(MATH, "x", "x"))


@asynccontextmanager
async def api() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app()
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://v") as client:
        while (await client.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.1)
        yield client


async def test_the_api(monkeypatch: pytest.MonkeyPatch, redis_url: str):
    monkeypatch.setenv("HEADWATER_VERIFICATION_WORKERS", "1")
    monkeypatch.setenv("HEADWATER_REDIS_URL", redis_url)
    items = (
        VerdictRequest(id="b", kind=MATH, reference="5", response="no answer"),
        VerdictRequest(id="a", kind=MATH, reference="x+1", response="\\boxed{1+x}"),
    )
    batch = VerdictBatch(items=items).model_dump(mode="json")
    async with api() as client:
        response = await client.post("/v1/verdicts", json=batch)
        result = VerdictBatchResult.model_validate_json(response.content)
        assert [(item.id, item.verdict.outcome) for item in result.items] == [("b", "incorrect"), ("a", "correct")]
        assert result.items[1].verdict.verifier.startswith("math-verify@")
        bad = await client.post("/v1/verdicts", json={"items": [{"id": "a", "kind": "poem"}]})
        assert bad.status_code == 422
    async with api() as client:  # another process, in effect: the judgement comes from Valkey, in no time of work
        again = await client.post("/v1/verdicts", json=batch)
        verdicts = VerdictBatchResult.model_validate_json(again.content)
        assert [item.verdict.outcome for item in verdicts.items] == ["incorrect", "correct"]
        assert verdicts.items[1].verdict.milliseconds == 0


async def test_verdicts_stream_past_one_that_hangs(monkeypatch: pytest.MonkeyPatch, redis_url: str):
    monkeypatch.setenv("HEADWATER_VERIFICATION_DEADLINE_S", "5")
    monkeypatch.setenv("HEADWATER_REDIS_URL", redis_url)
    answers = ["9^{9^{9}}", *(f"x/3+{n}-{n}" for n in range(20))]
    items = tuple(
        VerdictRequest(id=str(n), kind=MATH, reference=r"\frac{x}{3}", response=f"\\boxed{{{answer}}}")
        for n, answer in enumerate(answers)
    )
    body = VerdictBatch(items=items).model_dump(mode="json")
    async with api() as client:
        answer = await client.post("/v1/verdicts", json=body, headers={"Accept": "application/x-ndjson"})
    lines = [IdentifiedVerdict.model_validate_json(line) for line in answer.text.splitlines()]
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert (lines[-1].id, lines[-1].verdict.unscored_reason) == ("0", "timeout")
    assert {line.id: line.verdict.outcome for line in lines[:-1]} == {str(n): "correct" for n in range(1, 21)}


async def test_a_stream_without_a_worker_is_refused_before_it_begins():
    async with workers((sys.executable, "-c", "raise SystemExit(1)")) as pool:
        app = FastAPI()
        app.state.verifier = Verifier({MATH: pool}, Cache(10))
        app.include_router(router)
        item = VerdictRequest(id="0", kind=MATH, reference="x", response="\\boxed{y}")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://v") as client:
            with pytest.raises(UnavailableError):
                await client.post(
                    "/v1/verdicts",
                    json=VerdictBatch(items=(item,)).model_dump(mode="json"),
                    headers={"Accept": "application/x-ndjson"},
                )
