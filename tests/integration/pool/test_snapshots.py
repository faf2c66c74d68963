"""Snapshots: built in the background from verified answers, the same rows for the same pool and seed."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import asyncpg
import pyarrow.parquet as pq
import pytest

from tests.integration.pool.client import PoolClient

pytestmark = pytest.mark.integration


async def built(pool: PoolClient, key: str, recipe: str, order: Any, **fields: Any):
    body = {"campaign_id": pool.campaign, "key": key, "recipe": recipe, "order_id": order["id"], "seed": 7} | fields
    snapshot = await pool.ask("POST", "/v1/snapshots", 201, json=body)
    async with asyncio.timeout(60):
        while snapshot["status"] == "building":
            await asyncio.sleep(0.05)
            snapshot = await pool.ask("GET", f"/v1/snapshots/{snapshot['id']}")
    assert await pool.ask("POST", "/v1/snapshots", 200, json=body) == snapshot
    await pool.ask("POST", "/v1/snapshots", 409, json=body | {"seed": 8})
    return snapshot


def rows_of(snapshot: Any):
    file = Path(snapshot["uri"])
    assert hashlib.sha256(file.read_bytes()).hexdigest() == snapshot["content_hash"]
    rows = pq.read_table(file).to_pylist()
    assert len(rows) == snapshot["rows"] > 0
    for row in rows:
        spans = [(segment["start"], segment["end"]) for segment in row["segments"]]
        assert [0, *(end for _, end in spans)] == [*(start for start, _ in spans), len(row["text"])]
    return rows


async def members(pool: PoolClient, snapshot: Any) -> set[str]:
    found = await pool.execute(
        "SELECT question_id FROM pool.snapshot_questions WHERE snapshot_id = :id", id=snapshot["id"]
    )
    return {str(row.question_id) for row in found}


async def taught(pool: PoolClient):
    await pool.submit(30, domain="arithmetic")
    order = await pool.order("teach", k=1)
    await pool.answer_all(lambda assignment, _: "correct" if assignment["question"]["answer"] != "1" else "incorrect")
    return order


async def test_distilled_rows_train_what_is_right(pool: PoolClient):
    order = await taught(pool)
    teach = {"rounds_weights": [0.5, 0.5], "copies": 2, "solve_only_fraction": 0.2}
    snapshot = await built(pool, "sft-0", "distill", order, teach=teach)
    rows = rows_of(snapshot)
    assert (snapshot["status"], snapshot["dropped"]) == ("ready", {"no_correct_attempt": 1})
    assert {int(rounds): count for rounds, count in snapshot["rounds"].items()} == {
        rounds: sum(row["rounds"] == rounds for row in rows) for rounds in {row["rounds"] for row in rows}
    }
    masks = {tuple(segment["trained"] for segment in row["segments"]) for row in rows}
    assert masks == {(True,), (True, True), (False, True, True, True)}
    assert str(pool.hints.advanced[-1]) == pool.campaign
    same = await built(pool, "sft-0-again", "distill", order, teach=teach)
    assert same["content_hash"] == snapshot["content_hash"]


async def test_own_attempts_become_trajectories_with_replay(pool: PoolClient):
    teacher = await taught(pool)
    replayed = await built(pool, "sft-0", "distill", teacher, teach={})
    await pool.submit([{"question": "Held out", "answer": "1", "split": "eval", "domain": "arithmetic"}])
    probe = await pool.order(selection={"split": None})
    await pool.answer_all(
        lambda assignment, at: "correct" if at >= int(assignment["question"]["answer"]) % 4 else "incorrect"
    )
    await pool.submit([{"question": "Calculate 1+1.", "answer": "2", "split": "eval"}])
    build = {"keep_probability": [1, 1, 1, 1], "replay_fraction": 0.5, "one_round_fraction": 0}
    fields = {"build": build, "replay_snapshot_id": replayed["id"]}
    snapshot = await built(pool, "sft-1", "s2r", probe, **fields)
    rows = rows_of(snapshot)
    own = [row for row in rows if row["text"].split("\n")[0].isdigit()]
    assert len(rows) == len(own) + round(0.5 * len(own))
    first_verdicts = [row["text"].split("the answer is ")[1].startswith("incorrect") for row in own]
    assert 2 * sum(first_verdicts) == len(own)
    assert max(row["rounds"] for row in own) > 1
    assert not {"Calculate 1+1.", "Held out"} & {row["question"] for row in own}
    assert await members(pool, snapshot) == {row["question_id"] for row in rows}
    again = await built(pool, "sft-1-again", "s2r", probe, **fields)
    assert again["content_hash"] == snapshot["content_hash"]


async def test_a_snapshot_without_rows_says_why(pool: PoolClient):
    await pool.submit(2, domain="arithmetic")
    order = await pool.order("teach", k=1)
    await pool.answer_all("incorrect")
    snapshot = await built(pool, "sft-0", "distill", order)
    assert (snapshot["status"], snapshot["rows"]) == ("ready", 0)
    assert snapshot["dropped"] == {"no_correct_attempt": 2}


async def test_a_dead_builders_snapshot_is_built_by_the_next(pool: PoolClient):
    order = await taught(pool)
    snapshot = await built(pool, "sft-0", "distill", order)
    await pool.execute(
        "UPDATE pool.snapshots SET status = 'building', uri = '', lease_expires_at = now() + interval '1 hour'"
    )
    assert (await pool.ask("GET", f"/v1/snapshots/{snapshot['id']}"))["status"] == "building"
    await pool.execute("UPDATE pool.snapshots SET lease_expires_at = now() - interval '1 s'")
    async with asyncio.timeout(60):
        while (again := await pool.ask("GET", f"/v1/snapshots/{snapshot['id']}"))["status"] == "building":
            await asyncio.sleep(0.05)
    assert (again["status"], again["content_hash"]) == ("ready", snapshot["content_hash"])
    assert len(await members(pool, again)) == 29


async def test_a_question_that_leaves_while_its_rows_are_built_is_left_out(pool: PoolClient):
    order = await taught(pool)
    retracting = await asyncpg.connect(pool.database_url.replace("+asyncpg", ""))
    building = None
    async with retracting.transaction():
        await retracting.execute("UPDATE pool.questions SET state = 'retracted' WHERE text = 'Calculate 5+1.'")
        building = asyncio.create_task(built(pool, "sft-0", "distill", order))
        async with asyncio.timeout(60):
            while not await pool.execute(
                "SELECT 1 FROM pg_stat_activity WHERE :pid = ANY(pg_blocking_pids(pid))",
                pid=retracting.get_server_pid(),
            ):
                await asyncio.sleep(0.02)
    await retracting.close()
    snapshot = await building
    rows = rows_of(snapshot)
    assert "Calculate 5+1." not in {row["question"] for row in rows}
    assert len(await members(pool, snapshot)) == len(rows) == 28
