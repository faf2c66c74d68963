"""Lineage and retraction in the pool: what used a question, and that nothing uses it from then on."""

from typing import Any
from uuid import uuid4

import pytest

from tests.integration.pool.building import built
from tests.integration.pool.client import PoolClient, group
from tests.integration.pool.test_batches import acknowledge, lease, standing

pytestmark = pytest.mark.integration


async def uses(pool: PoolClient, question_id: str, **page: Any):
    return await pool.ask("GET", f"/v1/lineage/questions/{question_id}", params=page)


async def retract(pool: PoolClient, *question_ids: str, reason: str = "wrong answer", **fields: Any):
    body = {"reason": reason, "ids": list(question_ids)} | fields
    return await pool.ask("POST", "/v1/lineage/retractions", json=body)


async def trained_on(pool: PoolClient, **request: Any):
    return await pool.ask("POST", "/v1/lineage/questions", json=request)


async def test_a_question_knows_its_groups_snapshots_and_batches(pool: PoolClient):
    order, run = await standing(pool, questions=4, watermark=4), str(uuid4())
    await pool.answer_all()
    batch = await lease(pool, order, run, 3)
    taken = batch["groups"][0]["question"]["id"]
    probe = (await uses(pool, taken))["groups"][0]["order_id"]
    snapshot = await built(pool, "s2r", "s2r", {"id": probe}, build={"keep_probability": [1, 1, 1, 1]})

    found = await uses(pool, taken)
    assert [(one["purpose"], one["consumption"]) for one in found["groups"]] == [
        ("probe", "none"),
        ("rollout", "leased"),
    ]
    in_batch = found["groups"][1]
    assert (in_batch["batch"]["batch_id"], in_batch["batch"]["step"]) == (batch["batch_id"], 3)
    assert in_batch["batch"]["state"] == "leased"
    outcomes = [(one["outcome"], one["verifier"]) for one in found["groups"][0]["verdicts"]]
    assert outcomes == [("correct", "test@1")] * 2 + [("incorrect", "test@1")] * 2
    assert found["runs"] == [{"run_id": run, "first_step": 3, "batches": 1, "acknowledged": 0}]
    assert [move["reason"] for move in found["moves"]] == ["probe"]
    members = await pool.execute("SELECT question_id FROM pool.snapshot_questions")
    in_snapshot = taken in {str(row.question_id) for row in members}
    assert [one["snapshot_id"] for one in found["snapshots"]] == [snapshot["id"]] * in_snapshot

    await acknowledge(pool, batch["batch_id"], run, 3)
    assert (await uses(pool, taken))["runs"][0]["acknowledged"] == 1
    first = await uses(pool, taken, limit=1)
    second = await uses(pool, taken, limit=1, after=first["next"])
    assert [one["id"] for one in (*first["groups"], *second["groups"])] == [one["id"] for one in found["groups"]]
    assert (await uses(pool, taken, limit=1, after=second["next"]))["groups"] == []
    await pool.ask("GET", f"/v1/lineage/questions/{uuid4()}", 404)


async def test_what_runs_and_snapshots_were_trained_on_by_pages(pool: PoolClient):
    order, run = await standing(pool, questions=6, watermark=6), str(uuid4())
    await pool.answer_all()
    leased = [await lease(pool, order, run, step) for step in range(3)]
    questions = [[one["question"]["id"] for one in batch["groups"]] for batch in leased]

    async def all_of(**request: Any):
        found, after = [], None
        while True:
            page = await trained_on(pool, limit=2, after=after, **request)
            found.extend(page["items"])
            if (after := page["next"]) is None:
                return found

    early = await all_of(runs=[{"run_id": run, "before_step": 2}])
    assert [one["question_id"] for one in early] == sorted(questions[0] + questions[1])
    assert {one["state"] for one in early} == {"hard"}
    every = await all_of(runs=[{"run_id": run}, {"run_id": run, "before_step": 1}])
    assert {one["question_id"] for one in every} == {one for batch in questions for one in batch}
    probe = (await uses(pool, questions[0][0]))["groups"][0]["order_id"]
    snapshot = await built(pool, "s2r", "s2r", {"id": probe}, build={"keep_probability": [1, 1, 1, 1]})
    members = await pool.execute("SELECT question_id FROM pool.snapshot_questions")
    assert [one["question_id"] for one in await all_of(snapshots=[snapshot["id"]])] == sorted(
        str(row.question_id) for row in members
    )
    assert await all_of() == []


async def test_a_question_retracted_in_the_middle_of_a_leased_batch_is_acknowledged_and_listed(pool: PoolClient):
    order, run = await standing(pool, questions=4, watermark=8), str(uuid4())
    await pool.answer_all()
    batch = await lease(pool, order, run, 0)
    leased = batch["groups"][0]["question"]["id"]
    waiting = [
        row[0] for row in await pool.execute("SELECT question_id FROM pool.groups WHERE consumption = 'waiting'")
    ]
    other = next(str(one) for one in waiting if str(one) not in [g["question"]["id"] for g in batch["groups"]])

    answer = await retract(pool, leased, other)
    first, second = answer["items"]
    assert (first["status"], first["from_state"], [use["run_id"] for use in first["runs"]]) == (
        "retracted",
        "hard",
        [run],
    )
    assert (second["dropped_groups"], second["runs"]) == (sum(str(one) == other for one in waiting), [])
    await acknowledge(pool, batch["batch_id"], run, 0)

    again = (await retract(pool, leased, reason="said again"))["items"][0]
    assert (again["status"], again["from_state"], again["dropped_groups"]) == ("already", None, 0)
    assert again["runs"] == [first["runs"][0] | {"acknowledged": 1}]
    found = await uses(pool, leased)
    assert [(move["from_pool"], move["to_pool"], move["reason"]) for move in found["moves"]][-1] == (
        "hard",
        "retracted",
        "wrong answer",
    )
    counts = await pool.pools()
    assert (counts["retracted"], counts["train"], counts["hard"]) == (2, 2, 2)
    left = len([one for one in waiting if str(one) not in (leased, other)])
    rest = await lease(pool, order, run, 1, groups=100)
    assert rest["waiting"] == left
    reasons = await pool.execute("SELECT question_id, drop_reason FROM pool.groups WHERE consumption = 'dropped'")
    assert {(str(row[0]), row[1]) for row in reasons} >= {(other, "question-retracted")}
    assert {str(row[0]) for row in reasons} <= {leased, other}


async def test_nothing_uses_a_retracted_question_any_more(pool: PoolClient):
    order, run = await standing(pool, questions=3, watermark=3), str(uuid4())
    await pool.answer_all()
    batch = await lease(pool, order, run, 0, groups=3)
    gone = batch["groups"][0]["question"]["id"]
    probe = await pool.order(key="again", policy_version=2)
    held = await pool.claim(limit=1)
    await retract(pool, gone)
    release = {"run_id": run, "fence": 1, "from_step": 0}
    assert (await pool.ask("POST", "/v1/batches/release", json=release))["groups"] == 3
    next_batch = await lease(pool, order, run, 0, groups=2)
    assert gone not in [one["question"]["id"] for one in next_batch["groups"]]
    claimed = [*held, *await pool.claim()]
    assert gone not in [one["question"]["id"] for one in claimed if one not in held]
    await pool.hand_in(*(group(one) for one in claimed if one["order_id"] == probe["id"]))
    state = await pool.ask("GET", f"/v1/questions/{gone}")
    assert state["state"] == "retracted"
    fresh = await pool.order(key="third", policy_version=3)
    assert fresh["total"] == 2
    assert (await pool.submit(3))["duplicate"] == 3
    snapshot = await built(pool, "s2r", "s2r", probe, build={"keep_probability": [1, 1, 1, 1]})
    members = await pool.execute(
        "SELECT question_id FROM pool.snapshot_questions WHERE snapshot_id = :id", id=snapshot["id"]
    )
    assert gone not in {str(row.question_id) for row in members}


async def test_a_source_is_retracted_piece_by_piece(pool: PoolClient):
    await pool.submit(5, source="leaky")
    await pool.submit([{"question": "Other", "answer": "1", "source": "clean"}])
    body = {"reason": "licence", "campaign": pool.campaign, "source": "leaky", "limit": 3}
    answers = [await pool.ask("POST", "/v1/lineage/retractions", json=body) for _ in range(3)]
    assert [(len(answer["items"]), answer["more"]) for answer in answers] == [(3, True), (2, False), (0, False)]
    assert {item["status"] for answer in answers for item in answer["items"]} == {"retracted"}
    counts = await pool.pools()
    assert (counts["retracted"], counts["train"]) == (5, 1)
    found = await pool.ask("GET", "/v1/pools/difficulty", params={"campaign": pool.campaign})
    assert [(one["reason"], one["n"]) for one in found["moves"]] == [("retracted", 5)]


async def test_ids_are_answered_one_by_one_and_bad_requests_in_one_sentence(pool: PoolClient):
    await pool.submit(1)
    [row] = await pool.execute("SELECT id FROM pool.questions")
    known, unknown = str(row.id), str(uuid4())
    answer = await retract(pool, unknown, known, known)
    assert [(item["question_id"], item["status"]) for item in answer["items"]] == [
        (unknown, "not_found"),
        (known, "retracted"),
        (known, "already"),
    ]
    for body in (
        {"reason": "x"},
        {"reason": "x", "ids": [known], "source": "s", "campaign": pool.campaign},
        {"reason": "x", "source": "s"},
        {"reason": " ", "ids": [known]},
        {"reason": "a\u0000b", "ids": [known]},
        {"reason": "x", "ids": [known] * 1001},
    ):
        refused = await pool.ask("POST", "/v1/lineage/retractions", 422, json=body)
        assert refused["error"]["code"] == "invalid_request"
    body = {"reason": "x", "source": "s", "campaign": unknown}
    await pool.ask("POST", "/v1/lineage/retractions", 404, json=body)
