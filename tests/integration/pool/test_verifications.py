"""Verifications of stored answers: ordered, handed out with the truth, taken as groups, and built into trajectories."""

from typing import Any
from uuid import uuid4

import pytest

from tests.integration.pool.building import built, request, rows_of
from tests.integration.pool.client import PoolClient

pytestmark = pytest.mark.integration
SENTENCES = {True: "Therefore, the answer is correct.", False: "Therefore, the answer is incorrect."}


async def probed(pool: PoolClient):
    """Questions of no domain, each with one right answer and others that are wrong."""
    await pool.submit(6)
    await pool.submit([{"question": "Held out", "answer": "9", "split": "eval"}])
    order = await pool.order(selection={"split": None})
    await pool.answer_all(lambda _, at: "correct" if at == 0 else "incorrect")
    return order


async def verify(pool: PoolClient, order: Any, status: int = 201, **fields: Any):
    body = {"key": "verify", "policy_id": pool.policy, "policy_version": 1, "k": 1}
    return await pool.ask("POST", f"/v1/orders/{order['id']}/verify", status, json=body | fields)


def verification(answer: Any, says: bool | None) -> dict[str, Any]:
    text = f"I look at {answer['answer']}.\n{SENTENCES[says] if says is not None else ''}".strip()
    claimed = None if says is None else "correct" if says else "incorrect"
    true = says is not None and says == answer["correct"]
    outcome = "unscored" if says is None else "correct" if true else "incorrect"
    segment = {"kind": "verify", "start": 0, "end": len(text), "claimed": claimed}
    return {
        "text": text,
        "finish_reason": "stop",
        "verdict": {
            "outcome": outcome,
            "unscored_reason": "response-unparseable" if says is None else None,
            "answer": answer["answer"],
            "segments": [segment | {"reward": None if says is None else 1.0 if true else -1.0}],
            "verifier": "confirmative@1",
        },
    }


async def answers(pool: PoolClient, *assignments: Any):
    body = {"assignments": [one["id"] for one in assignments]}
    return (await pool.ask("POST", "/v1/verifications/answers", json=body))["items"]


async def test_true_verifications_become_trajectories(pool: PoolClient):
    probe = await probed(pool)
    before = [(one["pass_rate"], one["state"]) for one in await questions(pool)]
    order = await verify(pool, probe)
    assert (order["purpose"], order["total"], order["k"]) == ("verify", 6, 1)
    assert await verify(pool, probe, 200) == order
    await verify(pool, probe, 409, style="problem-solving")

    claimed = await pool.claim()
    found = await answers(pool, *claimed, {"id": str(uuid4())})
    assert len(found) == 6
    assert {item["style"] for item in found} == {"confirmative"}
    assert all([one["correct"] for one in item["answers"]] == [True, False, False, False] for item in found)
    groups = []
    for number, (assignment, item) in enumerate(zip(claimed, found, strict=True)):
        # The first question's verifier is always wrong, the second's says nothing, the others tell the truth.
        says = [[not one["correct"], None, one["correct"]][min(number, 2)] for one in item["answers"]]
        responses = [verification(*pair) for pair in zip(item["answers"], says, strict=True)]
        lease = {name: assignment[name] for name in ("lease_token", "policy_id")}
        groups.append({"assignment_id": assignment["id"], "responses": responses, **lease})
    assert {receipt["status"] for receipt in await pool.hand_in(*groups)} == {"stored"}
    assert (await pool.ask("GET", f"/v1/orders/{order['id']}"))["state"] == "complete"
    assert [(one["pass_rate"], one["state"]) for one in await questions(pool)] == before

    yields = await pool.ask("GET", f"/v1/orders/{order['id']}/yields")
    counts = {item["outcome"]: item["n"] for item in yields["items"]}
    assert counts == {"correct": 16, "incorrect": 4, "unscored": 4}
    build = {"keep_probability": [1, 1, 1, 1], "own_verifications": False, "balance_verdicts": False}
    build |= {"one_round_fraction": 0, "replay_fraction": 0}
    without = await pool.ask("POST", "/v1/snapshots", 201, json=request(pool, "no", "s2r", probe, build=build))
    snapshot = await built(pool, "yes", "s2r", probe, build=build, more_order_ids=[order["id"]])
    rows = rows_of(snapshot)
    assert len(rows) == 4
    assert snapshot["dropped"] == {"no_true_verification": 2}
    assert all("I look at" in row["text"] and row["text"].endswith(SENTENCES[True]) for row in rows)
    assert max(row["rounds"] for row in rows) > 1
    assert without["id"] != snapshot["id"]


async def questions(pool: PoolClient):
    page = await pool.ask("GET", "/v1/questions", params={"campaign": pool.campaign, "limit": 100})
    return sorted(page["items"], key=lambda one: one["id"])


async def test_what_makes_no_sense_is_refused(pool: PoolClient):
    probe = await probed(pool)
    order = await verify(pool, probe)

    async def refused(method: str, path: str, status: int, code: str, **body: Any):
        answer = await pool.ask(method, path, status, **body)
        assert answer["error"]["code"] == code

    again = {"key": "twice", "policy_id": pool.policy, "policy_version": 1}
    await refused("POST", f"/v1/orders/{order['id']}/verify", 422, "verifies_nothing", json=again)
    reverify = {"key": "twice", "verifiers": ["test@2"]}
    await refused("POST", f"/v1/orders/{order['id']}/reverify", 422, "reverifies_nothing", json=reverify)
    await refused("POST", f"/v1/orders/{uuid4()}/verify", 404, "not_found", json=again)
    await refused("GET", f"/v1/orders/{probe['id']}/yields", 422, "not_verifications")
    await refused("GET", f"/v1/orders/{uuid4()}/yields", 404, "not_found")
    rejection = request(pool, "own", "rejection", probe, more_order_ids=[order["id"]])
    await refused("POST", "/v1/snapshots", 422, "not_answers", json=rejection)
    await refused("POST", "/v1/snapshots", 422, "not_answers", json=request(pool, "own", "s2r", order))
    plain = {"campaign_id": pool.campaign, "policy_id": pool.policy, "policy_version": 1, "k": 1, "sampling": {}}
    await refused("POST", "/v1/orders", 422, "verifies_an_order", json=plain | {"key": "v", "purpose": "verify"})
