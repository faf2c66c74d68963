"""`Idempotency-Key`: the same request gets the same answer, another one a conflict, and bodies of any size are compared."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from services.pool import background
from services.pool.api.idempotency import IdempotencyKeys
from shared.db import Database
from tests.integration.pool.client import PoolClient, RecordedHints

pytestmark = pytest.mark.integration
QUESTION = b'{"question": "What is 1+1?", "answer": "2"}\n'


async def submit(pool: PoolClient, key: str, body: Any = QUESTION) -> httpx.Response:
    headers = {"Idempotency-Key": key, "Content-Type": "application/x-ndjson"}
    return await pool.http.post("/v1/questions", params={"campaign": pool.campaign}, content=body, headers=headers)


async def test_a_repeated_request_gets_its_first_answer_and_another_one_a_conflict(pool: PoolClient):
    first, again, other = [await submit(pool, "one", body) for body in (QUESTION, QUESTION, QUESTION * 2)]
    assert (first.status_code, first.json()["accepted"], "Idempotent-Replayed" in first.headers) == (200, 1, False)
    assert (again.status_code, again.content, again.headers["Idempotent-Replayed"]) == (200, first.content, "true")
    assert again.headers["Content-Type"] == first.headers["Content-Type"]
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert (await submit(pool, "two")).json()["duplicate"] == 1
    settings = {"name": "test"}
    path = f"/v1/campaigns/{pool.campaign}/settings"
    await pool.ask("PUT", path, 409, json=settings, headers={"Idempotency-Key": "one"})
    await pool.ask("GET", "/v1/pools", params={"campaign": pool.campaign}, headers={"Idempotency-Key": "one"})


async def test_a_body_in_parts_is_compared_whole(pool: PoolClient):
    async def parts(last: bytes):
        for number in range(50):
            yield b'{"question": "What is %d+1?", "answer": "%d"}\n' % (number, number + 1)
        yield last

    first, again, other = [await submit(pool, "parts", parts(last)) for last in (b"", b"", b"{}")]
    assert first.json()["accepted"] == 50
    assert again.content == first.content
    assert other.status_code == 409


async def test_writes_without_a_body_and_new_things_are_answered_alike(pool: PoolClient):
    await pool.submit(3)
    order = {
        "campaign_id": pool.campaign,
        "key": "o",
        "purpose": "probe",
        "policy_id": pool.policy,
        "policy_version": 1,
    }
    body = order | {"k": 2, "sampling": {}}
    made = [await pool.http.post("/v1/orders", json=body, headers={"Idempotency-Key": "made"}) for _ in range(2)]
    assert [answer.status_code for answer in made] == [201, 201]
    assert made[0].json() == made[1].json()
    claim = {"worker": "w", "limit": 2}
    claims = [
        await pool.http.post("/v1/assignments/claim", json=claim, headers={"Idempotency-Key": "claim"})
        for _ in range(2)
    ]
    assert claims[0].json() == claims[1].json()
    assert len(claims[0].json()["assignments"]) == 2
    path = f"/v1/orders/{made[0].json()['id']}/close"
    closed = [await pool.http.post(path, headers={"Idempotency-Key": "close"}) for _ in range(2)]
    assert closed[0].json() == closed[1].json()
    assert closed[1].headers["Idempotent-Replayed"] == "true"


async def test_only_success_is_kept(pool: PoolClient):
    registered, pool.campaign = pool.campaign, str(uuid4())
    assert (await submit(pool, "early")).status_code == 404
    pool.campaign = registered
    assert (await submit(pool, "early")).json()["accepted"] == 1


async def test_the_same_request_twice_at_once_is_answered_twice(pool: PoolClient):
    answers = await asyncio.gather(*(submit(pool, "at once") for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(answer.json()["accepted"] for answer in answers if "Idempotent-Replayed" not in answer.headers) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "two\twords"])
async def test_a_key_that_is_none_is_refused(pool: PoolClient, key: str):
    answer = await submit(pool, key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_key_invalid")


async def test_a_key_is_forgotten_after_a_day(pool: PoolClient):
    await submit(pool, "old")
    await submit(pool, "new")
    await pool.execute("UPDATE pool.idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'old'")
    assert (await submit(pool, "old", QUESTION * 2)).json()["duplicate"] == 2
    await pool.execute("UPDATE pool.idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'old'")
    database = Database(pool.database_url)
    await background.tidy(database, RecordedHints())
    await database.close()
    assert [row.key for row in await pool.execute("SELECT key FROM pool.idempotency_keys")] == ["new"]


async def test_an_answer_too_large_to_keep_is_passed_on(database_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.pool.api.idempotency.MAX_ANSWER_BYTES", 1000)
    calls = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(20):
            await send({"type": "http.response.body", "body": b"x" * 100, "more_body": number < 19})

    database = Database(database_url)
    transport = httpx.ASGITransport(IdempotencyKeys(app, database))
    async with httpx.AsyncClient(transport=transport, base_url="http://pool") as http:
        answers = [await http.post("/", content=b"x" * 100_000, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    await database.close()
    assert [len(answer.content) for answer in answers] == [2000, 2000]
    assert calls == 2
