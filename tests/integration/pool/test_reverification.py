"""Stored responses judged again: what flips moves pass rates and pools, once, and every verdict is kept."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.pool import identity
from tests.integration.pool.client import PoolClient, group
from tests.integration.pool.test_batches import acknowledge, lease, standing

pytestmark = pytest.mark.integration
NEW = "test@2"


async def reverify(pool: PoolClient, order: Any, status: int = 201, key: str = "again", verifiers: Any = (NEW,)):
    body = {"key": key, "verifiers": list(verifiers)}
    return await pool.ask("POST", f"/v1/orders/{order['id']}/reverify", status, json=body)


async def stored(pool: PoolClient, *assignments: Any):
    body = {"assignments": [one["id"] for one in assignments]}
    return (await pool.ask("POST", "/v1/reverifications/responses", json=body))["items"]


def verdicts(assignment: Any, outcomes: list[str], verifier: str = NEW):
    return {
        "assignment_id": assignment["id"],
        "lease_token": assignment["lease_token"],
        "verdicts": [
            {
                "outcome": outcome,
                "unscored_reason": "timeout" if outcome == "unscored" else None,
                "answer": "1",
                "segments": [{"kind": "solve", "start": 0, "end": 1, "reward": 1.0 if outcome == "correct" else -1.0}],
                "verifier": verifier,
            }
            for outcome in outcomes
        ],
    }


async def hand_in(pool: PoolClient, *items: Any):
    answer = await pool.ask("POST", "/v1/reverifications/verdicts", json={"items": items})
    return [receipt["status"] for receipt in answer["receipts"]]


async def judge(pool: PoolClient, outcomes: list[str] | Callable[[Any], list[str]]):
    claimed = await pool.claim()
    wanted = [outcomes(one) if callable(outcomes) else outcomes for one in claimed]
    assert set(await hand_in(pool, *(verdicts(*pair) for pair in zip(claimed, wanted, strict=True)))) == {"stored"}
    return claimed


async def flips(pool: PoolClient, order: Any, **page: Any):
    return await pool.ask("GET", f"/v1/orders/{order['id']}/flips", params=page)


async def difficulty(pool: PoolClient, question_id: str):
    return await pool.ask("GET", f"/v1/questions/{question_id}/difficulty")


async def test_flips_move_questions_between_pools_and_keep_the_old_verdicts(pool: PoolClient):
    await pool.submit(3)
    probe = await pool.order()
    await pool.answer_all(lambda _, at: ("correct", "incorrect", "unscored", "incorrect")[at])
    assert (await pool.pools())["hard"] == 3
    order = await reverify(pool, probe)
    assert (order["purpose"], order["total"], order["policy_id"]) == ("reverify", 3, pool.policy)
    assert await reverify(pool, probe, 200) == order
    await reverify(pool, probe, 409, verifiers=["test@3"])

    claimed = await pool.claim()
    texts = await stored(pool, *claimed, {"id": str(uuid4())})
    assert [len(item["texts"]) for item in texts] == [4, 4, 4]
    assert texts[0]["texts"][0].startswith(claimed[0]["question"]["answer"])
    all_right = verdicts(claimed[0], ["correct"] * 4)
    none_said = verdicts(claimed[1], ["unscored", *["incorrect"] * 3])
    none_said["verdicts"][0]["unscored_reason"] = "reference-unparseable"  # then nobody knows that the others are wrong
    the_same = verdicts(claimed[2], ["correct", "incorrect", "incorrect", "incorrect"])
    too_few = verdicts(claimed[2], ["correct"])
    unknown = all_right | {"assignment_id": str(uuid4())}
    assert await hand_in(pool, all_right, too_few, unknown, none_said) == ["stored", "refused", "refused", "stored"]
    assert await hand_in(pool, all_right, the_same, the_same) == ["duplicate", "stored", "duplicate"]
    done = await pool.ask("GET", f"/v1/orders/{order['id']}")
    assert (done["state"], done["done"], done["total"]) == ("complete", 3, 3)

    moved, unmoved, worse = (one["question"]["id"] for one in claimed)
    found = await difficulty(pool, moved)
    [measured] = found["measurements"]
    assert (measured["purpose"], measured["n"], measured["correct"]) == ("probe", 4, 4)
    assert (found["state"], found["level"], found["pass_rate"]) == ("trivial", 1, 1.0)
    assert (found["moves"][-1]["to_pool"], found["moves"][-1]["reason"]) == ("trivial", "reverify")
    assert found["moves"][-1]["order_id"] == order["id"]
    [measured] = (await difficulty(pool, unmoved))["measurements"]
    assert (measured["n"], measured["correct"]) == (3, 1)
    [measured] = (await difficulty(pool, worse))["measurements"]
    assert (measured["n"], measured["correct"]) == (4, 1)
    counts = await pool.pools()
    assert (counts["hard"], counts["trivial"], counts["levels"]) == (2, 1, {"1": 1, "4": 2})
    [version] = (await pool.ask("GET", "/v1/pools/difficulty", params={"campaign": pool.campaign}))["versions"]
    assert version["levels"] == {"1": 1, "4": 2}

    report = await flips(pool, order)
    assert {(one["from_outcome"], one["to_outcome"]): one["n"] for one in report["counts"]} == {
        ("correct", "correct"): 2,
        ("correct", "unscored"): 1,
        ("incorrect", "correct"): 2,
        ("incorrect", "incorrect"): 2,
        ("incorrect", "unscored"): 2,
        ("unscored", "correct"): 1,
        ("unscored", "incorrect"): 1,
        ("unscored", "unscored"): 1,
    }
    assert {(one["kind"]) for one in report["counts"]} == {"math"}
    assert len(report["items"]) == 7
    page = await flips(pool, order, limit=4)
    rest = await flips(pool, order, limit=4, after=page["next"])
    assert (page["items"] + rest["items"], rest["next"]) == (report["items"], None)
    refused = await pool.ask("GET", f"/v1/orders/{probe['id']}/flips", 422, params={"after": page["next"]})
    assert refused["error"]["code"] == "other_cursor"
    assert (report["items"][0]["from_verifier"], report["items"][0]["to_verifier"]) == ("test@1", NEW)

    lineage = await pool.ask("GET", f"/v1/lineage/questions/{unmoved}")
    [group] = lineage["groups"]
    assert {one["verifier"] for one in group["verdicts"]} == {"test@1"}
    assert [(one["verifier"], one["outcome"]) for one in group["history"] if one["position"] == 0] == [
        ("test@1", "correct"),
        (NEW, "unscored"),
    ]
    [group] = (await pool.ask("GET", f"/v1/lineage/questions/{moved}"))["groups"]
    assert {(one["verifier"], one["outcome"]) for one in group["verdicts"]} == {(NEW, "correct")}
    assert {one["order_id"] for one in group["history"]} == {probe["id"], order["id"]}


async def test_only_what_older_verifiers_judged_is_judged_again(pool: PoolClient):
    await pool.submit(2)
    probe = await pool.order()
    await pool.answer_all("incorrect")
    assert (await reverify(pool, probe, verifiers=["test@1", "other@1"], key="same"))["state"] == "complete"
    await reverify(pool, probe, key="first")
    await judge(pool, ["correct"] * 4)
    again = await reverify(pool, probe, key="second")
    assert (again["total"], again["state"]) == (0, "complete")
    third = await reverify(pool, probe, key="third", verifiers=["test@3"])
    [one, other] = await pool.claim()
    await pool.ask("POST", "/v1/lineage/retractions", json={"reason": "x", "ids": [other["question"]["id"]]})
    new = [verdicts(item, ["incorrect"] * 4, "test@3") for item in (one, other)]
    assert await hand_in(pool, *new) == ["stored", "stored"]
    assert [(c["from_outcome"], c["to_outcome"], c["n"]) for c in (await flips(pool, third))["counts"]] == [
        ("correct", "incorrect", 8)
    ]
    assert (await difficulty(pool, one["question"]["id"]))["state"] == "noise"
    gone = await difficulty(pool, other["question"]["id"])
    assert (gone["state"], gone["measurements"][0]["correct"]) == ("retracted", 0)
    [group] = (await pool.ask("GET", f"/v1/lineage/questions/{one['question']['id']}"))["groups"]
    assert [item["verifier"] for item in group["history"] if item["position"] == 3] == ["test@1", NEW, "test@3"]
    refused = await reverify(pool, third, 422, key="of itself")
    assert refused["error"]["code"] == "reverifies_nothing"
    refused = await pool.order("reverify", 422)
    assert refused["error"]["code"] == "reverifies_an_order"
    refused = await pool.ask("GET", f"/v1/orders/{probe['id']}/flips", 422)
    assert refused["error"]["code"] == "not_a_reverification"
    await reverify(pool, {"id": str(uuid4())}, 404)


async def test_pages_of_flips_repeat_nothing_while_more_are_judged(pool: PoolClient):
    await pool.submit(3)
    probe = await pool.order(k=2)
    answered = await pool.answer_all("incorrect")
    groups = {one["question"]["id"]: identity.group_id(UUID(one["id"])) for one in answered}
    order = await reverify(pool, probe)
    first, *others = sorted(await pool.claim(), key=lambda one: groups[one["question"]["id"]])
    assert set(await hand_in(pool, *(verdicts(one, ["correct"] * 2) for one in others))) == {"stored"}
    page = await flips(pool, order, limit=2)
    assert await hand_in(pool, verdicts(first, ["correct"] * 2)) == ["stored"]
    rest = await flips(pool, order, limit=2, after=page["next"])
    keys = [(one["group_id"], one["position"]) for one in page["items"] + rest["items"]]
    assert len(set(keys)) == len(keys) == 4


async def test_two_re_verifications_of_a_group_in_one_hand_in_count_one_after_the_other(pool: PoolClient):
    await pool.submit(1)
    probe = await pool.order()
    [assignment] = await pool.answer_all("incorrect")
    await reverify(pool, probe, key="one", verifiers=["a@2"])
    second = await reverify(pool, probe, key="two", verifiers=["b@2"])
    [first, other] = sorted(await pool.claim(), key=lambda one: one["order_id"] == second["id"])
    status = await hand_in(pool, verdicts(first, ["correct"] * 4, "a@2"), verdicts(other, ["incorrect"] * 4, "b@2"))
    assert status == ["stored", "stored"]
    assert [(c["from_outcome"], c["to_outcome"]) for c in (await flips(pool, second))["counts"]] == [
        ("correct", "incorrect")
    ]
    [measured] = (await difficulty(pool, assignment["question"]["id"]))["measurements"]
    assert (measured["n"], measured["correct"]) == (4, 0)


async def test_a_teachers_answer_found_wrong_leaves_the_tiny_pool(pool: PoolClient):
    await pool.submit(2)
    teach = await pool.order("teach", k=1)
    await pool.answer_all(lambda assignment, _: "correct" if assignment["question"]["answer"] == "1" else "incorrect")
    await reverify(pool, teach)
    claimed = await judge(pool, lambda one: ["incorrect" if one["question"]["answer"] == "1" else "correct"])
    states = {one["question"]["answer"]: await difficulty(pool, one["question"]["id"]) for one in claimed}
    assert {answer: found["tiny"] for answer, found in states.items()} == {"1": False, "2": True}
    assert [(move["from_pool"], move["to_pool"], move["reason"]) for move in states["1"]["moves"]] == [
        ("candidate", "tiny", "teach"),
        ("tiny", "candidate", "reverify"),
    ]
    assert (await pool.pools())["tiny"] == 1


async def test_an_older_probe_is_recounted_but_moves_nothing_and_late_verdicts_count(pool: PoolClient):
    await pool.submit(1)
    old = await pool.order(key="old")
    [assignment] = await pool.answer_all("incorrect")
    await pool.order(key="new", policy_version=2)
    await pool.answer_all("correct")
    order = await reverify(pool, old)
    [claimed] = await pool.claim()
    await pool.expire_leases()
    assert await hand_in(pool, verdicts(claimed, ["correct", "correct", "incorrect", "incorrect"])) == ["late"]
    found = await difficulty(pool, assignment["question"]["id"])
    assert (found["state"], found["pass_rate"]) == ("trivial", 1.0)
    assert [(one["policy_version"], one["correct"]) for one in found["measurements"]] == [(1, 2), (2, 4)]
    versions = (await pool.ask("GET", "/v1/pools/difficulty", params={"campaign": pool.campaign}))["versions"]
    assert [(one["policy_version"], one["levels"]) for one in versions] == [(1, {"3": 1}), (2, {"1": 1})]
    assert (await pool.ask("GET", f"/v1/orders/{order['id']}"))["done"] == 1


async def test_a_leased_group_is_judged_again_under_the_trainer(pool: PoolClient):
    order, run = await standing(pool, questions=2, watermark=2), str(uuid4())
    await pool.answer_all("correct")
    batch = await lease(pool, order, run, 0)
    again = await reverify(pool, order)
    assert (again["total"], again["k"]) == (2, 4)
    judged = [one for one in await pool.claim() if one["order_id"] == again["id"]]
    assert await hand_in(pool, *(verdicts(one, ["incorrect"] * 4) for one in judged)) == ["stored", "stored"]
    await acknowledge(pool, batch["batch_id"], run, 0)
    outcomes = {
        response["verdict"]["outcome"]
        for group in (await lease(pool, order, run, 0))["groups"]
        for response in group["responses"]
    }
    assert outcomes == {"incorrect"}


async def test_an_assignment_that_judges_a_group_takes_no_new_one(pool: PoolClient):
    await pool.submit(1)
    probe = await pool.order()
    await pool.answer_all("incorrect")
    await reverify(pool, probe)
    [assignment] = await pool.claim()
    [receipt] = await pool.hand_in(group(assignment))
    assert (receipt["status"], "hand in its verdicts" in receipt["message"]) == ("refused", True)
    assert await hand_in(pool, verdicts(assignment, ["correct"] * 4)) == ["stored"]
