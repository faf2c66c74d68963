"""`Idempotency-Key`: the same request gets the same answer, another one a conflict, and bodies of any size are compared."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from services.pool import background
from services.pool.api.idempotency import IdempotencyKeys
from shared.bodies import MAX_BODY_BYTES
from shared.db import Database
from shared.settings import Settings
from tests.integration.pool.client import PoolClient, RecordedHints, serving

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


async def test_a_body_that_cannot_be_compared_is_refused_by_name(pool: PoolClient, monkeypatch: pytest.MonkeyPatch):
    path = f"/v1/campaigns/{pool.campaign}/settings"
    headers = {"Idempotency-Key": "large", "Content-Type": "application/json"}
    assert (await pool.http.put(path, content=b'{"name": "test"}', headers=headers)).status_code == 200
    large = await pool.http.put(path, content=b" " * (MAX_BODY_BYTES + 1), headers=headers)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large")
    monkeypatch.setattr("shared.bodies.SILENCE_S", 0.05)
    silent = await pool.http.put(path, content=Slow(), headers=headers)
    assert (silent.status_code, silent.json()["error"]["code"]) == (408, "body_timeout")


async def test_a_write_that_needs_no_body_is_answered_whatever_comes_of_it(
    pool: PoolClient, monkeypatch: pytest.MonkeyPatch
):
    await pool.submit(1)
    order = await pool.order("rollout", watermark_groups=1)
    monkeypatch.setattr("shared.bodies.SILENCE_S", 0.05)
    for body in (Slow(), b"x" * (MAX_BODY_BYTES + 1)):
        headers = {"Idempotency-Key": "close"}
        closed = await pool.http.post(f"/v1/orders/{order['id']}/close", content=body, headers=headers)
        assert (closed.status_code, closed.json()["state"]) == (200, "closed")
    assert await pool.execute("SELECT 1 FROM pool.idempotency_keys UNION SELECT 1 FROM pool.idempotency_claims") == []


async def test_only_success_is_kept(pool: PoolClient):
    registered, pool.campaign = pool.campaign, str(uuid4())
    assert (await submit(pool, "early")).status_code == 404
    pool.campaign = registered
    assert (await submit(pool, "early")).json()["accepted"] == 1


async def test_the_same_request_at_once_is_carried_out_once(pool: PoolClient):
    answers = await asyncio.gather(*(submit(pool, "at once") for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.content for answer in answers} == {answers[0].content}
    assert ["Idempotent-Replayed" in answer.headers for answer in answers].count(False) == 1


@asynccontextmanager
async def two_replicas(pool: PoolClient) -> AsyncIterator[tuple[PoolClient, PoolClient]]:
    """The pool, and another process of it on the same database."""
    async with serving(Settings(database_url=pool.database_url), RecordedHints()) as http:
        other = PoolClient(http, RecordedHints(), pool.database_url)
        other.campaign = pool.campaign
        yield pool, other


async def texts(pool: PoolClient) -> list[str]:
    return [row.text for row in await pool.execute("SELECT text FROM pool.questions ORDER BY position")]


class Slow:
    """A body whose end comes when it is told to; `begun` once its first part is taken."""

    def __init__(self, first: bytes = QUESTION) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self._first = first

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first
        self.begun.set()
        await self.go_on.wait()


async def test_of_different_requests_at_once_one_is_carried_out_and_the_others_are_conflicts(pool: PoolClient):
    bodies = [b'{"question": "What is %d+1?", "answer": "%d"}' % (at, at + 1) for at in range(6)]
    async with two_replicas(pool) as replicas:
        answers = await asyncio.gather(*(submit(replicas[at % 2], "one", body) for at, body in enumerate(bodies)))
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 5]
    conflicts = {answer.json()["error"]["code"] for answer in answers if answer.status_code == 409}
    assert conflicts == {"idempotency_key_reused"}
    [at] = [at for at, answer in enumerate(answers) if answer.status_code == 200]
    assert await texts(pool) == [f"What is {at}+1?"]


async def test_who_comes_meanwhile_waits_as_long_as_the_claim_is_kept_up(
    pool: PoolClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("services.pool.service.idempotency.CLAIMED_FOR", timedelta(seconds=0.5))
    monkeypatch.setattr("services.pool.service.idempotency.EXTEND_EVERY_S", 0.1)
    async with two_replicas(pool) as (one, other):
        slow = Slow()
        first = asyncio.create_task(submit(one, "slow", slow))
        await slow.begun.wait()
        second = asyncio.create_task(submit(other, "slow", b'{"question": "Other?", "answer": "1"}'))
        again = asyncio.create_task(submit(other, "slow"))
        await asyncio.sleep(1.0)
        assert not any(task.done() for task in (first, second, again))
        assert await texts(pool) == []
        slow.go_on.set()
        assert (await first).json()["accepted"] == 1
        assert (await second).json()["error"]["code"] == "idempotency_key_reused"
        assert (await again).content == (await first).content
    assert await texts(pool) == ["What is 1+1?"]
    assert await pool.execute("SELECT 1 FROM pool.idempotency_claims") == []


async def test_a_wait_has_an_end(pool: PoolClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.pool.service.idempotency.WAIT_S", 0.1)
    slow = Slow()
    first = asyncio.create_task(submit(pool, "slow", slow))
    await slow.begun.wait()
    second = await submit(pool, "slow", b'{"question": "Other?", "answer": "1"}')
    assert (second.status_code, second.json()["error"]["code"]) == (409, "idempotency_key_in_use")
    assert int(second.headers["Retry-After"]) > 0
    slow.go_on.set()
    assert (await first).json()["accepted"] == 1
    assert await texts(pool) == ["What is 1+1?"]


async def test_the_turn_of_a_request_that_failed_is_the_next_ones(pool: PoolClient):
    slow = Slow(b"{}")
    where = {"campaign": str(uuid4())}
    headers = {"Idempotency-Key": "turn", "Content-Type": "application/json"}
    failing = pool.http.put(f"/v1/campaigns/{where['campaign']}/settings", content=slow, headers=headers)
    first = asyncio.create_task(failing)
    await slow.begun.wait()
    second = asyncio.create_task(submit(pool, "turn"))
    await asyncio.sleep(0.1)
    slow.go_on.set()
    assert (await first).status_code == 422
    assert (await second).json()["accepted"] == 1


async def test_a_claim_of_a_process_that_died_runs_out(pool: PoolClient):
    await pool.execute(
        "INSERT INTO pool.idempotency_claims VALUES "
        "('dead', gen_random_uuid(), now() + interval '0.5 s'), ('gone', gen_random_uuid(), now() - interval '1 s')"
    )
    assert (await submit(pool, "gone")).json()["accepted"] == 1
    assert (await submit(pool, "dead")).json()["duplicate"] == 1


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
