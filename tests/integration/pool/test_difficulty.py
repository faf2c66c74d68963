"""Difficulty as a time series, and moves between pools as events with their reason."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.integration.pool.client import PoolClient, group

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]


async def difficulty(pool: PoolClient, question_id: str):
    return await pool.ask("GET", f"/v1/questions/{question_id}/difficulty")


async def overall(pool: PoolClient):
    return await pool.ask("GET", "/v1/pools/difficulty", params={"campaign": pool.campaign})


def moves(answer: Any):
    return [(move["from_pool"], move["to_pool"], move["reason"]) for move in answer["moves"]]


async def test_pass_rates_by_version_with_intervals_and_the_moves_they_made(pool: PoolClient):
    await pool.submit(1)
    await pool.order("teach", k=1)
    [assignment] = await pool.answer_all("correct")
    question = assignment["question"]["id"]
    newer = str(uuid4())
    await pool.order(key="first", k=8)
    await pool.answer_all(lambda _, at: "correct" if at < 2 else "incorrect")
    second = await pool.order(key="second", policy_id=newer, policy_version=2, k=8)
    await pool.answer_all(lambda _, at: "unscored" if at == 0 else "correct")

    found = await difficulty(pool, question)
    measured = {(one["policy_version"], one["purpose"]): one for one in found["measurements"]}
    assert [(key, one["n"], one["correct"]) for key, one in measured.items()] == [
        ((1, "teach"), 1, 1),
        ((1, "probe"), 8, 2),
        ((2, "probe"), 7, 7),
    ]
    early = measured[1, "probe"]
    assert (early["mean"], early["variance"], early["level"]) == (0.25, 0.1875, 4)
    assert (early["low"], early["high"]) == pytest.approx((0.0555, 0.5925), abs=5e-3)
    assert measured[2, "probe"]["high"] == 1.0
    assert (found["state"], found["level"], found["tiny"]) == ("trivial", 1, True)
    assert moves(found) == [
        ("candidate", "tiny", "teach"),
        ("candidate", "hard", "probe"),
        ("hard", "trivial", "probe"),
    ]
    assert found["moves"][-1]["order_id"] == second["id"]
    await pool.ask("GET", f"/v1/questions/{uuid4()}/difficulty", 404)


async def test_a_campaign_counts_levels_by_version_and_moves_by_reason(pool: PoolClient):
    await pool.submit(6)
    await pool.submit([{"question": "Held out", "answer": "1", "split": "eval"}])
    await pool.order(key="first", selection={"split": None})
    await pool.answer_all(
        lambda assignment, at: "correct" if at < int(assignment["question"]["answer"]) else "incorrect"
    )
    await pool.order(key="again", selection={"split": None})
    await pool.answer_all("correct")
    await pool.order(key="second", policy_version=2, selection={"limit": 4})
    await pool.answer_all("incorrect")
    await pool.submit([{"question": "Calculate 0+1.", "answer": "1", "split": "eval"}])
    found = await overall(pool)
    assert [(one["policy_version"], one["split"], one["n"], one["levels"]) for one in found["versions"]] == [
        (1, "eval", 1, {"1": 1}),
        (1, "train", 6, {"1": 6}),
        (2, "train", 4, {"5": 4}),
    ]
    counted = {(one["from_pool"], one["to_pool"], one["reason"]): one["n"] for one in found["moves"]}
    events = await pool.execute(
        "SELECT from_state, to_state, reason, count(*) FROM pool.question_events GROUP BY 1, 2, 3"
    )
    assert counted == {(row[0], row[1], row[2]): row[3] for row in events}
    assert counted["trivial", "noise", "probe"] == 4
    assert (
        sum(n for (_, to_pool, reason), n in counted.items() if (to_pool, reason) == ("quarantined", "eval_leak")) == 1
    )
    await pool.ask("GET", "/v1/pools/difficulty", 404, params={"campaign": str(uuid4())})


async def test_a_reference_that_cannot_be_read_is_a_move_with_its_reason(pool: PoolClient):
    await pool.submit(1)
    await pool.order()
    [assignment] = await pool.claim()
    await pool.hand_in(group(assignment, "unscored", reason="reference-unparseable"))
    assert moves(await difficulty(pool, assignment["question"]["id"])) == [
        ("candidate", "quarantined", "reference-unparseable")
    ]


async def test_a_probe_asks_those_again_of_which_it_tells_most_within_its_budget(pool: PoolClient):
    await pool.submit(8)
    await pool.order(key="old", policy_version=1, k=8, selection={"limit": 6, "seed": 1})
    known = [one["question"]["id"] for one in await pool.claim()]
    claimed = {one["question"]["id"]: one for one in await pool.claim()}
    assert claimed == {}
    await pool.expire_leases()
    outcomes = {question: (4, 4, 4, 6, 6, 8)[at] for at, question in enumerate(sorted(known))}
    await pool.answer_all(lambda one, at: "correct" if at < outcomes[one["question"]["id"]] else "incorrect")
    await pool.order(key="newer", policy_version=2, k=8, selection={"limit": 1, "seed": 1})
    [fresh] = await pool.answer_all("correct")

    async def asked(key: str, **selection: Any) -> list[str]:
        order = await pool.order(key=key, policy_version=2, selection=selection)
        claimed = [one["question"]["id"] for one in await pool.claim()]
        await pool.ask("POST", f"/v1/orders/{order['id']}/close")
        return claimed

    reprobe = {"policy_version": 2}
    every = await asked("all", limit=100, reprobe=reprobe)
    assert fresh["question"]["id"] not in every
    assert len(every) == 7
    budget = await asked("budget", limit=4, reprobe=reprobe)
    never = {str(row.id) for row in await pool.execute("SELECT id FROM pool.questions WHERE probed_version IS NULL")}
    assert len(budget) == 4
    assert never < set(budget)
    near = {question for question in outcomes if outcomes[question] == 6} - {fresh["question"]["id"]}
    assert near < set(budget)
    assert set(await asked("same", limit=4, reprobe=reprobe)) == set(budget)
    assert await asked("stale", limit=4, reprobe=reprobe | {"minimum_staleness": 4}) == []
    await pool.order(key="no budget", status=422, selection={"reprobe": reprobe})


async def test_the_migration_counts_what_was_there_before_it(pool: PoolClient):
    await pool.submit(5)
    for version in (1, 2):
        await pool.order(key=str(version), policy_version=version)
        await pool.answer_all(
            lambda assignment, at: "correct" if at < int(assignment["question"]["answer"]) else "incorrect"
        )
    before = await overall(pool)
    revision = next((ROOT / "migrations" / "versions").glob("*_difficulty_counts.py"))
    down = next(line.split('"')[1] for line in revision.read_text().splitlines() if line.startswith("down_revision"))
    await asyncio.to_thread(alembic, pool.database_url, "downgrade", down)
    assert await pool.execute("SELECT 1 FROM pool.counters WHERE name LIKE 'm%:%'") == []
    await asyncio.to_thread(alembic, pool.database_url, "upgrade", "head")
    assert await overall(pool) == before


def alembic(database_url: str, *words: str):
    environment = os.environ | {"HEADWATER_DATABASE_URL": database_url}
    subprocess.run(
        [sys.executable, "-m", "alembic", *words], cwd=ROOT, env=environment, check=True, capture_output=True
    )
