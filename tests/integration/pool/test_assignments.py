"""Claims: by priority, each assignment to one worker, and an answer that is what the contract says."""

import asyncio
from collections import Counter
from typing import Any
from uuid import uuid4

import pytest

from shared.contracts.orders import ClaimResult
from tests.integration.pool.client import PoolClient, group

pytestmark = pytest.mark.integration


def of_order(assignments: list[Any]):
    return Counter(assignment["order_id"] for assignment in assignments)


async def test_the_answer_of_a_claim_is_its_contract(pool: PoolClient):
    texts = ['Say "né\\n" — 1+1?', "Line\nand tab\t and 😀", "x" * 5000]
    await pool.submit([{"question": text, "answer": "2", "solution": "\\boxed{2}"} for text in texts])
    await pool.order(k=3, sampling={"temperature": 0.25, "max_tokens": 7}, deadline_s=33.5, policy_version=4)
    response = await pool.http.post("/v1/assignments/claim", json={"worker": "w", "limit": 64})
    result = ClaimResult.model_validate_json(response.content)
    assert {assignment.question.text for assignment in result.assignments} == set(texts)
    assert result.open_orders == 1
    for assignment in result.assignments:
        stored = await pool.ask("GET", f"/v1/questions/{assignment.question.id}")
        assert assignment.question.model_dump(mode="json") == stored
        assert (assignment.k, assignment.deadline_s, assignment.attempt) == (3, 33.5, 1)
        assert (assignment.sampling.temperature, assignment.sampling.max_tokens) == (0.25, 7)
        assert (str(assignment.policy_id), assignment.policy_version) == (pool.policy, 4)
        assert assignment.lease_expires_at.tzinfo is not None


async def test_a_higher_priority_goes_first_and_then_what_waits_longest(pool: PoolClient):
    await pool.submit(4)
    late = await pool.order(key="late")
    low = await pool.order(key="low", priority=-5)
    high = await pool.order(key="high", priority=7)
    claimed = [of_order(await pool.claim(limit=4)) for _ in range(3)]
    assert claimed == [Counter({order["id"]: 4}) for order in (high, late, low)]
    assert high["priority"] == 7


async def test_running_leases_of_a_higher_priority_hide_nothing(pool: PoolClient):
    await pool.submit(3)
    high, low = await pool.order(key="high", priority=1), await pool.order(key="low")
    held = await pool.claim(limit=2)
    assert of_order(held) == {high["id"]: 2}
    assert of_order(await pool.claim()) == {high["id"]: 1, low["id"]: 3}
    assert await pool.claim() == []
    await pool.expire_leases()
    assert of_order(await pool.claim(limit=3)) == {high["id"]: 3}


async def test_a_standing_order_of_a_higher_priority_is_topped_up_beside_a_finite_one(pool: PoolClient):
    await pool.submit(6)
    await pool.order(key="finite")
    standing = await pool.order("rollout", watermark_groups=2, priority=1)
    assert of_order(await pool.claim(limit=2)) == {standing["id"]: 2}


async def test_concurrent_consumers_never_get_the_same_assignment(pool: PoolClient):
    await pool.submit(150)
    for number in range(2):
        await pool.order(key=f"order {number}", priority=number)

    async def consume(worker: str) -> list[Any]:
        got: list[Any] = []
        while batch := await pool.claim(limit=7, worker=worker):
            got += batch
        return got

    by_worker = await asyncio.gather(*(consume(f"worker {number}") for number in range(4)))
    claimed = [assignment["id"] for got in by_worker for assignment in got]
    assert len(claimed) == len(set(claimed)) == 300
    holders = await pool.execute("SELECT id, worker, lease_token FROM pool.assignments")
    held = {str(row.id): (row.worker, str(row.lease_token)) for row in holders}
    assert held == {
        one["id"]: (f"worker {number}", one["lease_token"]) for number, got in enumerate(by_worker) for one in got
    }


async def test_what_died_on_the_way_is_counted_and_the_claim_goes_on(pool: PoolClient):
    await pool.submit(5)
    order = await pool.order(max_attempts=1)
    first = await pool.claim(limit=3)
    await pool.expire_leases()
    [leaked] = await pool.claim(limit=1)
    await pool.execute("UPDATE pool.questions SET state = 'retracted' WHERE id = :id", id=leaked["question"]["id"])
    await pool.expire_leases()
    assert len(await pool.claim(limit=3)) == 1
    reasons = await pool.execute("SELECT reason, count(*) FROM pool.assignments WHERE state = 'dead' GROUP BY reason")
    assert dict(row.tuple() for row in reasons) == {"lease-expired": 3, "question-retracted": 1}
    counted = await pool.execute("SELECT name, sum(value) FROM pool.counters WHERE name LIKE 'dead%' GROUP BY name")
    assert {name: int(value) for name, value in counted} == {
        "dead": 4,
        "dead:lease-expired": 3,
        "dead:question-retracted": 1,
    }
    now = await pool.ask("GET", f"/v1/orders/{order['id']}")
    assert (now["total"], now["dead"], now["state"]) == (5, 4, "open")
    assert {one["id"] for one in first} <= {
        str(row.id) for row in await pool.execute("SELECT id FROM pool.assignments")
    }


async def test_a_late_result_is_taken_while_its_group_is_missing_and_ignored_afterwards(pool: PoolClient):
    await pool.submit(2)
    order = await pool.order(max_attempts=1)
    lost, buried = await pool.claim()
    await pool.expire_leases()
    [receipt] = await pool.hand_in(group(lost))
    assert receipt["status"] == "late"
    assert await pool.claim() == []
    assert (await pool.ask("GET", f"/v1/orders/{order['id']}"))["dead"] == 1
    [receipt] = await pool.hand_in(group(buried))
    assert receipt["status"] == "late"
    [again] = await pool.hand_in(group(buried, "incorrect"))
    assert again["status"] == "duplicate"
    now = await pool.ask("GET", f"/v1/orders/{order['id']}")
    assert (now["state"], now["done"], now["dead"]) == ("complete", 2, 0)


async def test_a_heartbeat_holds_a_lease_that_nobody_took_over_and_no_other(pool: PoolClient):
    await pool.submit(2)
    await pool.order()
    mine, other = await pool.claim()
    await pool.expire_leases()
    leases = [
        {"assignment_id": mine["id"], "lease_token": mine["lease_token"]},
        {"assignment_id": other["id"], "lease_token": str(uuid4())},
    ]
    held = await pool.ask("POST", "/v1/assignments/heartbeat", json={"leases": leases, "lease_s": 60})
    assert held["held"] == leases[:1]
    assert [one["id"] for one in await pool.claim()] == [other["id"]]
    assert (await pool.ask("POST", "/v1/assignments/heartbeat", json={"leases": []}))["held"] == []


async def test_a_closed_orders_leases_cannot_be_given_back_or_held(pool: PoolClient):
    await pool.submit(2)
    order = await pool.order("rollout", watermark_groups=2)
    held = await pool.claim()
    await pool.ask("POST", f"/v1/orders/{order['id']}/close")
    lease = {"assignment_id": held[0]["id"], "lease_token": held[0]["lease_token"]}
    lost = await pool.ask("POST", "/v1/assignments/fail", 409, json=lease | {"reason": "x"})
    assert lost["error"]["code"] == "lease_lost"
    assert (await pool.ask("POST", "/v1/assignments/heartbeat", json={"leases": [lease]}))["held"] == []
    unknown = lease | {"assignment_id": str(uuid4()), "reason": "x"}
    await pool.ask("POST", "/v1/assignments/fail", 404, json=unknown)
    assert await pool.claim() == []
