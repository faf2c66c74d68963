"""Orders, claims, leases and groups: one holder, one group, every fact once."""

import asyncio
import hashlib
from typing import Any
from uuid import uuid4

import pytest

from services.pool.service.assignments import MAX_BLAMELESS_FAILURES
from shared.contracts.orders import OrderIn
from tests.integration.pool.client import PoolClient, group

pytestmark = pytest.mark.integration


async def progress(pool: PoolClient, order: Any):
    now = await pool.ask("GET", f"/v1/orders/{order['id']}")
    return now["state"], now["total"], now["done"], now["dead"]


async def test_a_probe_routes_questions_and_completes(pool: PoolClient):
    await pool.submit(5)
    order = await pool.order()
    right = {"1": 0, "2": 1, "3": 2, "4": 3, "5": 4}  # correct ones of 4, by the question's answer
    drains = pool.hints.drains
    await pool.answer_all(
        lambda assignment, at: "correct" if at < right[assignment["question"]["answer"]] else "incorrect"
    )
    assert drains == 1
    assert await progress(pool, order) == ("complete", 5, 5, 0)
    assert str(pool.hints.advanced[-1]) == pool.campaign
    counts = await pool.pools()
    found = {state: counts[state] for state in ("candidate", "noise", "hard", "certain", "trivial")}
    assert found == {"candidate": 0, "noise": 1, "hard": 2, "certain": 1, "trivial": 1}
    assert counts["levels"] == {"1": 1, "2": 1, "3": 1, "4": 1, "5": 1}
    assert (counts["groups"], counts["responses"]) == (5, 20)
    rates = await pool.execute("SELECT n, correct, variance, order_id FROM pool.pass_rates ORDER BY correct")
    assert [(rate.n, rate.correct, rate.variance) for rate in rates] == [
        (4, 0, 0), (4, 1, 0.1875), (4, 2, 0.25), (4, 3, 0.1875), (4, 4, 0)
    ]  # fmt: skip
    assert {str(rate.order_id) for rate in rates} == {order["id"]}


async def test_a_failure_is_never_a_reward(pool: PoolClient):
    await pool.submit(3)
    await pool.order()
    partly, not_at_all, broken = await pool.claim()
    await pool.hand_in(
        group(partly, lambda _, at: "correct" if at == 0 else "unscored"),
        group(not_at_all, "unscored"),
        group(broken, lambda _, at: "incorrect" if at else "unscored", "reference-unparseable"),
    )
    [(n, mean)] = await pool.execute("SELECT n, mean FROM pool.pass_rates")
    assert (n, mean) == (1, 1.0)
    counts = await pool.pools()
    assert (counts["candidate"], counts["trivial"], counts["quarantined"], counts["groups"]) == (1, 1, 1, 3)
    [unread] = await pool.execute("SELECT id, scored, correct, unscored FROM pool.groups WHERE unscored = 4 AND question_id = :id",
        id=broken["question"]["id"])  # fmt: skip
    assert unread[1:] == (0, 0, 4)
    responses = (await pool.ask("GET", f"/v1/groups/{unread.id}"))["responses"]
    assert {one["verdict"]["unscored_reason"] for one in responses} == {"reference-unparseable"}
    assert {one["verdict"]["outcome"] for one in responses} == {"unscored"}
    assert {segment["reward"] for one in responses for segment in one["verdict"]["segments"]} == {None}


async def test_an_older_probe_does_not_overrule_a_newer_one(pool: PoolClient):
    await pool.submit(1)
    await pool.order(key="old", policy_version=1)
    await pool.order(key="new", policy_version=2, policy_id=str(uuid4()))
    old, new = sorted(await pool.claim(), key=lambda assignment: assignment["policy_version"])
    await pool.hand_in(group(new, lambda _, at: "correct" if at == 0 else "incorrect"))
    await pool.hand_in(group(old, "correct"))
    counts = await pool.pools()
    assert (counts["hard"], counts["trivial"], counts["levels"]) == (1, 0, {"4": 1})


async def test_teaching_makes_tiny_questions(pool: PoolClient):
    await pool.submit(4)
    await pool.submit([{"question": "with solution", "answer": "7", "solution": "\\boxed{7}"}])
    order = await pool.order("teach", k=2, selection={"with_solution": True})
    assert (await progress(pool, order))[1] == 1
    await pool.answer_all(lambda _, at: "correct" if at else "incorrect")
    counts = await pool.pools()
    assert (counts["tiny"], counts["candidate"]) == (1, 5)


async def test_an_order_is_written_once_under_its_key(pool: PoolClient):
    await pool.submit(20)
    order = await pool.order(selection={"fraction": 0.25, "seed": 3})
    again = await pool.order(status=200, selection={"fraction": 0.25, "seed": 3})
    assert again == order
    assert order["total"] == 5
    await pool.order(status=409, selection={"fraction": 0.5, "seed": 3})


async def test_an_order_is_the_same_to_a_writer_who_does_not_know_every_field(pool: PoolClient):
    order = await pool.order()
    known = OrderIn.model_validate({name: order[name] for name in OrderIn.model_fields})
    unknown: Any = {
        "weights": True,
        "on_demand": True,
        "priority": True,
        "selection": {"reprobe"},
        "sampling": {"stop"},
    }
    earlier = known.model_dump_json(exclude=unknown)
    hashed = hashlib.sha256(earlier.encode()).hexdigest()
    await pool.execute("UPDATE pool.orders SET request_hash = :hash", hash=hashed)
    assert await pool.order(status=200) == order


async def test_an_expired_lease_is_claimed_again_and_its_late_group_is_taken_once(pool: PoolClient):
    await pool.submit(1)
    order = await pool.order()
    [first] = await pool.claim()
    assert await pool.claim() == []
    await pool.expire_leases()
    [second] = await pool.claim()
    assert (first["attempt"], second["attempt"], first["id"]) == (1, 2, second["id"])
    assert first["lease_token"] != second["lease_token"]
    leases = [{"assignment_id": one["id"], "lease_token": one["lease_token"]} for one in (first, second)]
    held = await pool.ask("POST", "/v1/assignments/heartbeat", json={"leases": leases})
    assert held["held"] == [leases[1]]
    await pool.ask("POST", "/v1/assignments/fail", 409, json=leases[0] | {"reason": "x"})
    [late] = await pool.hand_in(group(first, "correct"))
    [duplicate] = await pool.hand_in(group(second, "incorrect"))
    assert (late["status"], duplicate["status"]) == ("late", "duplicate")
    assert late["group_id"] == duplicate["group_id"]
    assert await progress(pool, order) == ("complete", 1, 1, 0)
    assert (await pool.execute("SELECT correct FROM pool.pass_rates"))[0].correct == 4


async def test_groups_that_cannot_be_the_assignments_are_refused(pool: PoolClient):
    await pool.submit(1)
    await pool.order()
    [assignment] = await pool.claim()
    other_policy = group(assignment) | {"policy_id": str(uuid4())}
    unknown = group(assignment) | {"assignment_id": str(uuid4())}
    uneven = group(assignment)
    uneven["responses"][1]["logprobs"] = ""
    receipts = await pool.hand_in(other_policy, unknown, uneven, group(assignment), group(assignment))
    assert [receipt["status"] for receipt in receipts] == ["refused", "refused", "refused", "stored", "duplicate"]
    assert assignment["policy_id"] in receipts[0]["message"]
    assert (await pool.pools())["groups"] == 1


async def test_an_assignment_dies_with_its_last_reason_and_the_order_still_completes(pool: PoolClient):
    await pool.submit(2)
    order = await pool.order(max_attempts=2)
    for attempt in (1, 2):
        failing, vanishing = sorted(await pool.claim(), key=lambda assignment: assignment["question"]["answer"])
        assert failing["attempt"] == attempt
        lost = {"assignment_id": failing["id"], "lease_token": failing["lease_token"], "reason": "engine-died"}
        answer = await pool.ask("POST", "/v1/assignments/fail", json=lost)
        assert answer["state"] == ("open" if attempt == 1 else "dead")
        await pool.execute("UPDATE pool.assignments SET available_at = now() WHERE available_at IS NOT NULL")
    assert await pool.claim() == []
    assert await progress(pool, order) == ("complete", 2, 0, 2)
    reasons = await pool.execute("SELECT reason FROM pool.assignments ORDER BY reason")
    assert [row.reason for row in reasons] == ["engine-died", "lease-expired"]
    [receipt] = await pool.hand_in(group(vanishing))
    assert receipt["status"] == "late"
    assert await progress(pool, order) == ("complete", 2, 1, 1)


async def test_a_blameless_failure_uses_up_no_attempt_but_not_for_ever(pool: PoolClient):
    await pool.submit(1)
    order = await pool.order(max_attempts=1)
    for left in reversed(range(MAX_BLAMELESS_FAILURES)):
        [assignment] = await pool.claim()
        assert assignment["attempt"] == 1
        lease = {"assignment_id": assignment["id"], "lease_token": assignment["lease_token"]}
        failure = lease | {"reason": "generation-down", "counts_as_attempt": False}
        answer = await pool.ask("POST", "/v1/assignments/fail", json=failure)
        assert answer["state"] == ("open" if left else "dead")
        await pool.execute("UPDATE pool.assignments SET available_at = now() WHERE available_at IS NOT NULL")
    assert await progress(pool, order) == ("complete", 1, 0, 1)
    [row] = await pool.execute("SELECT reason FROM pool.assignments")
    assert row.reason == "generation-down"


async def test_text_with_nul_is_stored_with_its_offsets(pool: PoolClient):
    await pool.submit(1)
    await pool.order()
    [assignment] = await pool.claim()
    handed_in = group(assignment)
    handed_in["responses"][0]["text"] = "\0" + handed_in["responses"][0]["text"][1:]
    handed_in["responses"][0]["verdict"]["segments"][0]["answer"] = "\0"
    [receipt] = await pool.hand_in(handed_in)
    stored = await pool.ask("GET", f"/v1/groups/{receipt['group_id']}")
    assert stored["responses"][0]["text"].startswith("�")
    handed_in["responses"][0] = stored["responses"][0]
    assert stored["responses"][1]["token_ends"] == handed_in["responses"][1]["token_ends"]
    page = await pool.ask("GET", "/v1/groups", params={"question": assignment["question"]["id"]})
    assert [group["id"] for group in page["items"]] == [receipt["group_id"]]


async def test_many_claimers_never_share_an_assignment_and_nothing_is_lost(pool: PoolClient):
    await pool.submit(120)
    order = await pool.order(k=1)
    claimed: list[str] = []

    async def work(name: str):
        while assignments := await pool.claim(limit=7, worker=name):
            claimed.extend(assignment["id"] for assignment in assignments)
            await pool.hand_in(*(group(assignment) for assignment in assignments))

    await asyncio.gather(*(work(f"worker-{number}") for number in range(6)))
    assert len(claimed) == len(set(claimed)) == 120
    assert await progress(pool, order) == ("complete", 120, 120, 0)
    assert (await pool.pools())["trivial"] == 120


async def test_folding_counters_changes_no_sum(pool: PoolClient):
    from services.pool.repository import counters
    from shared.db import Database

    await pool.submit(30)
    await pool.order(k=1)
    while await pool.answer_all(limit=1):
        pass
    before = await pool.pools()
    database = Database(pool.database_url)
    async with database.transaction() as session:
        await counters.fold(session, above=1)
    await database.close()
    [(rows, names)] = await pool.execute("SELECT count(*), count(DISTINCT (scope, name)) FROM pool.counters")
    assert await pool.pools() == before
    assert rows == names


async def test_eval_metrics(pool: PoolClient):
    await pool.submit(4, split="eval")
    order = await pool.order("eval", selection={"split": "eval"}, k=1)
    await pool.answer_all(lambda assignment, _: "correct" if assignment["question"]["answer"] == "1" else "incorrect")
    metrics = await pool.ask("GET", f"/v1/orders/{order['id']}/metrics")
    overall = metrics["overall"]
    assert (overall["n"], overall["unscored"], overall["final_accuracy"]["value"]) == (4, 0, 0.25)
    assert (overall["verification_accuracy"]["value"], overall["error_recall"]["n"]) == (1.0, 3)
    assert overall["mean_tokens"]["value"] > 0
    assert metrics["tokens_sampled"] == round(overall["mean_tokens"]["value"] * 4)


async def test_a_probe_of_both_splits_gives_eval_questions_a_level_and_nothing_else(pool: PoolClient):
    await pool.submit(20)
    await pool.submit([{"question": f"Held out {n}", "answer": str(n)} for n in range(5)], split="eval")
    evaluation = await pool.order("eval", selection={"split": "eval"}, k=1)
    await pool.answer_all("correct")
    assert (await pool.ask("GET", f"/v1/orders/{evaluation['id']}/metrics"))["by_level"] == {}

    probe = await pool.order(selection={"split": None, "fraction": 0.25})
    assert await progress(pool, probe) == ("open", 5 + 5, 0, 0)

    def outcome(assignment: Any, at: int) -> str:
        question = assignment["question"]
        return "correct" if question["split"] == "train" or at < int(question["answer"]) else "incorrect"

    await pool.answer_all(outcome)
    by_level = (await pool.ask("GET", f"/v1/orders/{evaluation['id']}/metrics"))["by_level"]
    assert {level: metrics["final_accuracy"]["value"] for level, metrics in by_level.items()} == {
        str(level): 1.0 for level in range(1, 6)
    }
    counts = await pool.pools()
    found = {state: counts[state] for state in ("candidate", "noise", "hard", "certain", "trivial")}
    assert found == {"candidate": 15, "noise": 0, "hard": 0, "certain": 0, "trivial": 5}
    assert (counts["levels"], counts["train"], counts["eval"]) == ({"1": 5}, 20, 5)
    for purpose in ("teach", "rollout"):
        refused = await pool.order(purpose, 422, selection={"split": None})
        assert refused["error"]["code"] == "eval_never_trains"
    refused = await pool.order("eval", 422, selection={"split": "eval", "fraction": 0.1})
    assert "leave 'fraction' out" in refused["error"]["message"]
