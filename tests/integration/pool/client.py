"""A client of the pool's app on a real database, with hints that are recorded instead of sent; made-up groups."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from services.pool.main import create_app
from shared.contracts.base import pack_float32, pack_int32
from shared.settings import Settings


class RecordedHints:
    """What would have been sent."""

    def __init__(self) -> None:
        self.drains = 0
        self.advanced: list[UUID] = []

    def drain(self) -> None:
        self.drains += 1

    def advance(self, campaign_id: UUID) -> None:
        self.advanced.append(campaign_id)

    async def close(self) -> None:
        pass


class PoolClient:
    """A client of the pool with one registered campaign."""

    def __init__(self, http: httpx.AsyncClient, hints: RecordedHints, database_url: str) -> None:
        self.http = http
        self.hints = hints
        self.database_url = database_url
        self.campaign = str(uuid4())
        self.policy = str(uuid4())

    async def ask(self, method: str, path: str, status: int = 200, **request: Any) -> Any:
        response = await self.http.request(method, path, **request)
        assert response.status_code == status, response.text
        return response.json()

    async def register(self, **router: Any) -> None:
        await self.ask("PUT", f"/v1/campaigns/{self.campaign}/settings", json={"name": "test", "router": router})

    async def submit(self, questions: Sequence[dict[str, Any]] | int, **common: Any) -> Any:
        if isinstance(questions, int):
            questions = [
                {"question": f"Calculate {number}+1.", "answer": str(number + 1)} for number in range(questions)
            ]
        body = "\n".join(json.dumps(question | common) for question in questions)
        return await self.ask(
            "POST",
            "/v1/questions",
            params={"campaign": self.campaign},
            content=body,
            headers={"Content-Type": "application/x-ndjson"},
        )

    async def order(self, purpose: str = "probe", status: int = 201, **fields: Any) -> Any:
        body = {
            "campaign_id": self.campaign,
            "key": purpose,
            "purpose": purpose,
            "policy_id": self.policy,
            "policy_version": 1,
            "k": 4,
            "sampling": {},
        }
        return await self.ask("POST", "/v1/orders", status, json=body | fields)

    async def claim(self, limit: int = 1000, worker: str = "worker") -> list[Any]:
        answer = await self.ask("POST", "/v1/assignments/claim", json={"worker": worker, "limit": limit})
        return list(answer["assignments"])

    async def hand_in(self, *groups: dict[str, Any]) -> list[Any]:
        return list((await self.ask("POST", "/v1/groups", json={"groups": groups}))["receipts"])

    async def answer_all(self, outcome: Callable[[Any, int], str] | str = "correct", **claim: Any) -> list[Any]:
        """Claim what there is and hand in its groups; returns the assignments."""
        assignments = await self.claim(**claim)
        if assignments:
            await self.hand_in(*(group(assignment, outcome) for assignment in assignments))
        return assignments

    async def pools(self) -> Any:
        return await self.ask("GET", "/v1/pools", params={"campaign": self.campaign})

    async def execute(self, statement: str, **values: Any) -> list[Any]:
        """SQL behind the service's back: to move the past, or to look."""
        engine = create_async_engine(self.database_url)
        async with engine.begin() as connection:
            result = await connection.execute(text(statement), values)
            rows = list(result.all()) if result.returns_rows else []
        await engine.dispose()
        return rows

    async def expire_leases(self) -> None:
        await self.execute("UPDATE pool.assignments SET available_at = now() - interval '1 s' WHERE state = 'leased'")


def response(outcome: str, answer: str = "1", reason: str | None = None) -> dict[str, Any]:
    """One response: a solve and, where it is judged, a verification that tells the truth."""
    right = outcome == "correct"
    solve = f"{answer}\n\\boxed{{{answer}}}"
    claimed = "correct" if right else "incorrect"
    answer_text = f"{solve}\nWait, let me recheck my solution.\n{answer}={answer}\nTherefore, the answer is {claimed}."
    length = len(answer_text)
    reward = 1.0 if right else -1.0
    segments = [
        {"kind": "solve", "start": 0, "end": len(solve), "answer": answer, "reward": reward},
        {"kind": "verify", "start": len(solve), "end": length, "claimed": claimed, "reward": 1.0},
    ]
    return {
        "text": answer_text,
        "finish_reason": "stop",
        "token_ids": pack_int32(list(range(length))),
        "logprobs": pack_float32([-0.5] * length),
        "token_ends": pack_int32(list(range(1, length + 1))),
        "verdict": {
            "outcome": outcome,
            "unscored_reason": (reason or "timeout") if outcome == "unscored" else None,
            "answer": answer,
            "segments": [] if outcome == "unscored" else segments,
            "verifier": "test@1",
        },
    }


def group(
    assignment: dict[str, Any], outcome: Callable[[Any, int], str] | str = "correct", reason: str | None = None
) -> dict[str, Any]:
    """The group of an assignment; `outcome` of each response by its position. Wrong answers are all different."""
    outcomes = [outcome if isinstance(outcome, str) else outcome(assignment, at) for at in range(assignment["k"])]
    right = assignment["question"]["answer"]
    return {
        "assignment_id": assignment["id"],
        "lease_token": assignment["lease_token"],
        "policy_id": assignment["policy_id"],
        "prompt_token_ids": pack_int32([1, 2, 3]),
        "responses": [
            response(value, right if value == "correct" else str(int(right) + at + 1), reason)
            for at, value in enumerate(outcomes)
        ],
    }


@asynccontextmanager
async def serving(settings: Settings, hints: RecordedHints) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app while its lifespan lasts."""
    app = create_app(settings, hints)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://pool") as http:
        yield http
