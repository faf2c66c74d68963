"""Standing orders and batches: nothing is trained twice, nothing is lost, nothing stale is handed out."""

import asyncio
import random
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.pool.repository import batches
from shared.db import Database
from tests.integration.pool.client import PoolClient, group

pytestmark = pytest.mark.integration


async def standing(pool: PoolClient, questions: int = 10, watermark: int = 6, **fields: Any):
    """A standing order over hard questions: half of each probe's answers were right."""
    await pool.submit(questions)
    await pool.order()
    await pool.answer_all(lambda _, at: "correct" if at < 2 else "incorrect")
    selection = {"states": ["hard"], "seed": 1}
    return await pool.order("rollout", watermark_groups=watermark, selection=selection, **fields)


def lease_body(order: Any, run: str, step: int, **fields: Any):
    body = {"order_id": order["id"], "run_id": run, "step": step, "fence": 1, "groups": 2, "policy_version": 1}
    return body | {"max_staleness": 0} | fields


async def lease(pool: PoolClient, *request: Any, status: int = 200, **fields: Any):
    return await pool.ask("POST", "/v1/batches/lease", status, json=lease_body(*request, **fields))


async def acknowledge(pool: PoolClient, batch_id: str, run: str, step: int, fence: int = 1, status: int = 200):
    return await pool.ask(
        "POST", f"/v1/batches/{batch_id}/ack", status, json={"run_id": run, "step": step, "fence": fence}
    )


def ids(batch: Any):
    return [group["id"] for group in batch["groups"]]


async def test_a_standing_order_keeps_to_its_watermark_and_spreads_over_questions(pool: PoolClient):
    order = await standing(pool, questions=10, watermark=6)
    first = await pool.answer_all()
    assert len(first) == 6
    assert await pool.claim() == []
    batch = await lease(pool, order, str(uuid4()), 0, groups=4)
    assert batch["waiting"] == 2
    second = await pool.claim()
    taken = [assignment["question"]["id"] for assignment in (*first, *second)]
    assert len(second) == 4
    assert len(set(taken)) == 10
    now = await pool.ask("GET", f"/v1/orders/{order['id']}")
    assert (now["state"], now["total"], now["done"]) == ("open", 10, 6)


async def test_an_order_on_demand_makes_work_only_while_a_trainer_waits(pool: PoolClient):
    order, run = await standing(pool, watermark=2, on_demand=True), str(uuid4())
    assert await pool.claim() == []
    for version in (1, 2):
        for _ in range(2):
            short = await lease(pool, order, run, version, policy_version=version)
            assert (short["batch_id"], short["waiting"]) == (None, 0)
        answered = await pool.answer_all()
        assert [one["policy_version"] for one in answered] == [version] * 2
        batch = await lease(pool, order, run, version, policy_version=version)
        assert (len(batch["groups"]), batch["dropped_stale"]) == (2, 0)
        assert await pool.claim() == []
        await acknowledge(pool, batch["batch_id"], run, version)
        newer = {"policy_id": str(uuid4()), "policy_version": version + 1}
        await pool.ask("PUT", f"/v1/orders/{order['id']}/policy", json=newer)
        assert await pool.claim() == []
    refused = await pool.order("probe", 422, on_demand=True)
    assert refused["error"]["code"] == "on_demand_is_standing"


async def test_no_matching_question_makes_no_work(pool: PoolClient):
    await pool.submit(3)
    order = await pool.order("rollout", watermark_groups=4, selection={"states": ["hard"]})
    answer = await pool.ask("POST", "/v1/assignments/claim", json={"worker": "w"})
    assert (answer["assignments"], answer["open_orders"]) == ([], 1)
    assert (await pool.ask("GET", f"/v1/orders/{order['id']}"))["total"] == 0


async def test_a_new_policy_is_used_from_now_on_and_closing_ends_it(pool: PoolClient):
    order = await standing(pool)
    [claimed] = await pool.claim(limit=1)
    newer = {"policy_id": str(uuid4()), "policy_version": 2}
    await pool.ask("PUT", f"/v1/orders/{order['id']}/policy", json=newer)
    await pool.ask("PUT", f"/v1/orders/{order['id']}/policy", 409, json=newer | {"policy_version": 1})
    rest = await pool.claim()
    assert claimed["policy_version"] == 1
    assert {(one["policy_id"], one["policy_version"]) for one in rest} == {(newer["policy_id"], 2)}
    for _ in range(2):
        closed = await pool.ask("POST", f"/v1/orders/{order['id']}/close")
        assert (closed["state"], closed["total"], closed["dead"]) == ("closed", 0, 0)
    await pool.expire_leases()
    assert await pool.claim() == []
    [receipt] = await pool.hand_in(group(claimed))
    assert receipt["status"] == "late"


async def test_a_step_has_one_batch_and_an_acknowledged_one_stays_consumed(pool: PoolClient):
    order, run = await standing(pool), str(uuid4())
    await pool.answer_all()
    batch = await lease(pool, order, run, 0)
    again = await lease(pool, order, run, 0)
    assert (again["batch_id"], ids(again)) == (batch["batch_id"], ids(batch))
    assert batch["groups"][0]["responses"][0]["verdict"]["segments"][0]["kind"] == "solve"
    for _ in range(2):
        await acknowledge(pool, batch["batch_id"], run, 0)
    other = await lease(pool, order, run, 1)
    assert not set(ids(other)) & set(ids(batch))
    too_many = await lease(pool, order, run, 2, groups=3)
    assert (too_many["batch_id"], too_many["groups"], too_many["waiting"]) == (None, [], 2)


async def test_a_resumed_run_gives_back_what_its_checkpoint_does_not_hold(pool: PoolClient):
    order, run = await standing(pool), str(uuid4())
    await pool.answer_all()
    kept, lost = await lease(pool, order, run, 0), await lease(pool, order, run, 1)
    await acknowledge(pool, kept["batch_id"], run, 0)
    released = await pool.ask("POST", "/v1/batches/release", json={"run_id": run, "fence": 2, "from_step": 1})
    assert released["groups"] == 2
    fenced = await lease(pool, order, run, 1, fence=1, status=409)
    assert fenced["error"]["code"] == "fenced"
    await acknowledge(pool, lost["batch_id"], run, 1, fence=1, status=409)
    await acknowledge(pool, lost["batch_id"], run, 1, fence=2, status=409)
    again = await lease(pool, order, run, 1, fence=2)
    assert ids(again) == ids(lost)
    await acknowledge(pool, again["batch_id"], run, 1, fence=2)


async def test_stale_groups_are_dropped_when_they_would_be_leased(pool: PoolClient):
    order, run = await standing(pool), str(uuid4())
    await pool.answer_all()
    drains = pool.hints.drains
    allowed = await lease(pool, order, run, 0, policy_version=2, max_staleness=1)
    assert (len(allowed["groups"]), allowed["dropped_stale"]) == (2, 0)
    refused = await lease(pool, order, run, 1, policy_version=3, max_staleness=1)
    assert (refused["batch_id"], refused["waiting"], refused["dropped_stale"]) == (None, 0, 4)
    assert pool.hints.drains > drains
    again = await lease(pool, order, run, 1, policy_version=3, max_staleness=1)
    assert again["dropped_stale"] == 0
    [(dropped,)] = await pool.execute("SELECT count(*) FROM pool.groups WHERE drop_reason = 'stale'")
    assert dropped == 4
    assert len(await pool.claim()) == 6


async def test_a_batch_that_has_grown_too_old_is_leased_anew(pool: PoolClient):
    order, run = await standing(pool), str(uuid4())
    await pool.answer_all()
    await lease(pool, order, run, 0)
    kept = await lease(pool, order, run, 1)
    await acknowledge(pool, kept["batch_id"], run, 1)
    refused = await lease(pool, order, run, 0, policy_version=2)
    assert (refused["batch_id"], refused["waiting"], refused["dropped_stale"]) == (None, 0, 4)
    assert ids(await lease(pool, order, run, 1, policy_version=2)) == ids(kept)
    newer = {"policy_id": str(uuid4()), "policy_version": 2}
    await pool.ask("PUT", f"/v1/orders/{order['id']}/policy", json=newer)
    await pool.answer_all()
    anew = await lease(pool, order, run, 0, policy_version=2)
    assert {group["policy_version"] for group in anew["groups"]} == {2}
    await acknowledge(pool, anew["batch_id"], run, 0)


async def test_a_group_that_comes_too_late_to_be_dropped_is_not_handed_out(pool: PoolClient):
    """As when it comes in between the dropping and the choice of one lease."""
    order = await standing(pool)
    await pool.answer_all()
    [(question,)] = await pool.execute("SELECT question_id FROM pool.groups WHERE consumption = 'waiting' LIMIT 1")
    await pool.execute("UPDATE pool.questions SET state = 'quarantined' WHERE id = :id", id=question)
    database = Database(pool.database_url)
    async with database.transaction() as session:
        newer = await batches.oldest_waiting(session, UUID(order["id"]), 2, 10)
        usable = await batches.oldest_waiting(session, UUID(order["id"]), 1, 10)
    await database.close()
    assert (len(newer), len(usable)) == (0, 5)


async def test_groups_of_a_question_that_leaked_into_eval_are_not_trained_on(pool: PoolClient):
    order, run = await standing(pool, questions=4, watermark=4), str(uuid4())
    [assignment, *_] = await pool.answer_all()
    await pool.submit([{"question": assignment["question"]["text"], "answer": "1", "split": "eval"}])
    batch = await lease(pool, order, run, 0, groups=3)
    assert assignment["question"]["id"] not in [group["question"]["id"] for group in batch["groups"]]
    assert (len(batch["groups"]), batch["waiting"]) == (3, 0)


async def test_groups_without_a_score_are_never_handed_out(pool: PoolClient):
    order = await standing(pool)
    await pool.answer_all("unscored")
    batch = await lease(pool, order, str(uuid4()), 0, groups=1)
    assert (batch["batch_id"], batch["waiting"]) == (None, 0)


async def test_an_expired_batch_goes_to_another_run_and_a_speaking_run_keeps_its_own(pool: PoolClient):
    order, dead, alive = await standing(pool), str(uuid4()), str(uuid4())
    await pool.answer_all()
    lost = await lease(pool, order, dead, 0, groups=3)
    kept = await lease(pool, order, alive, 0, groups=3)
    await pool.execute("UPDATE pool.batches SET lease_expires_at = now() - interval '1 s'")
    taken = await lease(pool, order, alive, 1, groups=3)
    assert ids(taken) == ids(lost)
    assert ids(await lease(pool, order, alive, 0, groups=3)) == ids(kept)
    answer = await acknowledge(pool, lost["batch_id"], dead, 0, status=409)
    assert answer["error"]["code"] == "batch_lost"


async def test_many_trainers_and_samplers_share_every_group_once(pool: PoolClient):
    """Trainers lease, forget, come back and acknowledge while samplers fill the pool: every group ends in one batch."""
    order = await standing(pool, questions=12, watermark=12)
    consumed: list[str] = []
    rng = random.Random(0)
    finished = asyncio.Event()

    async def sample(name: str):
        while not finished.is_set():
            assignments = await pool.claim(limit=3, worker=name)
            if assignments:
                await pool.hand_in(*(group(assignment) for assignment in assignments))

    async def train(run: str, steps: int):
        for step in range(steps):
            batch = await lease(pool, order, run, step, groups=2)
            while batch["batch_id"] is None:
                batch = await lease(pool, order, run, step, groups=2)
            if rng.random() < 0.3:
                await pool.ask("POST", "/v1/batches/release", json={"run_id": run, "fence": 1, "from_step": step})
                batch = await lease(pool, order, run, step, groups=2)
                while batch["batch_id"] is None:
                    batch = await lease(pool, order, run, step, groups=2)
            await acknowledge(pool, batch["batch_id"], run, step)
            consumed.extend(ids(batch))

    samplers = [asyncio.create_task(sample(f"sampler-{number}")) for number in range(2)]
    await asyncio.gather(*(train(str(uuid4()), 6) for _ in range(4)))
    finished.set()
    await asyncio.gather(*samplers)
    assert len(consumed) == len(set(consumed)) == 4 * 6 * 2
    rows = await pool.execute("SELECT consumption, count(*) FROM pool.groups GROUP BY 1")
    counts = {row.consumption: row.count for row in rows}
    assert (counts["consumed"], counts.get("leased", 0)) == (48, 0)
    now = await pool.ask("GET", f"/v1/orders/{order['id']}")
    assert now["done"] == counts["consumed"] + counts.get("waiting", 0)
    assert counts.get("waiting", 0) <= 12


async def test_only_groups_of_rollouts_are_trained_on(pool: PoolClient):
    await pool.submit(2)
    for purpose in ("probe", "eval", "teach"):
        refused = await pool.order(purpose, 422, watermark_groups=4)
        assert refused["error"]["code"] == "standing_is_rollout"
    order = await standing(pool)
    await pool.execute("UPDATE pool.orders SET purpose = 'probe'")  # as if it had come in some other way
    refused = await lease(pool, order, str(uuid4()), 0, status=409)
    assert refused["error"]["code"] == "not_rollout"
