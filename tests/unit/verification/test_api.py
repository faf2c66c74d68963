"""Verdicts for a client that leaves: its checks end, also before the first verdict."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from fastapi import FastAPI

from services.verification.api import NDJSON, router
from services.verification.cache import Cache
from services.verification.kinds.judgement import CORRECT, Check, Judgement
from services.verification.service import Verifier
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import VerdictBatch, VerdictRequest


class Endless:
    """Judges what ends in 0 at once, and the rest never."""

    def __init__(self) -> None:
        self.running = 0
        self.begun = asyncio.Event()

    async def judge(self, check: Check) -> Judgement:
        if check.answer.endswith("0"):
            return CORRECT
        self.running += 1
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1
        return CORRECT


@pytest.mark.parametrize("accept", ["application/json", NDJSON])
@pytest.mark.parametrize("answers", [("x1",), ("x0", "x1", "x2")])
async def test_when_the_client_leaves_its_checks_end(accept: str, answers: tuple[str, ...]):
    judge, left = Endless(), asyncio.Event()
    app = FastAPI()
    app.state.verifier = Verifier({QuestionKind.MATH: judge}, Cache(10))
    app.include_router(router)
    items = [
        VerdictRequest(id=one, kind=QuestionKind.MATH, reference="y", response=f"\\boxed{{{one}}}") for one in answers
    ]
    bodies = [VerdictBatch(items=tuple(items)).model_dump_json().encode()]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if bodies:
            return {"type": "http.request", "body": bodies.pop()}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [(b"accept", accept.encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/verdicts", "query_string": b"", "headers": headers}
    answering = asyncio.create_task(app(scope, receive, send))
    await judge.begun.wait()
    left.set()
    async with asyncio.timeout(20):
        await answering
        while judge.running:
            await asyncio.sleep(0.01)
    assert not any(b"x1" in message.get("body", b"") for message in sent)
