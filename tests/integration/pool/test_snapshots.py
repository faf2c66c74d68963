"""Snapshots: built in the background from verified answers, the same rows for the same pool and seed."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.integration.pool.building import built, cut_short, members, renamed, request, rows_of
from tests.integration.pool.client import PoolClient

pytestmark = pytest.mark.integration


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


async def test_right_answers_of_several_orders_and_pages_are_taken(pool: PoolClient):
    await pool.submit(600)
    first = await pool.order("probe", k=1)
    await pool.answer_all(lambda assignment, _: "correct" if int(assignment["question"]["answer"]) % 2 else "incorrect")
    second = await pool.order("eval", k=2, selection={"split": "train", "limit": 40})
    await pool.answer_all("correct")
    fields = {"more_order_ids": [second["id"]], "rejection": {"max_per_question": 1}}
    snapshot = await built(pool, "own", "rejection", first, **fields)
    rows = rows_of(snapshot)
    asked = await pool.execute("SELECT question_id FROM pool.groups WHERE correct > 0")
    assert {row["question_id"] for row in rows} == {str(row.question_id) for row in asked}
    assert len(rows) == len({row["question_id"] for row in rows}) > 300
    assert [row["question_id"] for row in rows] == sorted(row["question_id"] for row in rows)
    assert snapshot["dropped"] == {"no_correct_attempt": 600 - len(rows)}
    again = await built(pool, "own-again", "rejection", first, **fields)
    assert (again["uri"], again["content_hash"]) == (snapshot["uri"], snapshot["content_hash"])
    assert again["id"] != snapshot["id"]
    assert await members(pool, again) == await members(pool, snapshot) == {row["question_id"] for row in rows}


async def test_groups_for_offline_rl_come_with_what_the_pool_holds(pool: PoolClient):
    await pool.submit(70)
    order = await pool.order(k=4)
    await pool.answer_all(
        lambda assignment, at: "correct" if at < int(assignment["question"]["answer"]) % 5 else "incorrect"
    )
    await pool.execute("UPDATE pool.questions SET state = 'retracted' WHERE text = 'Calculate 0+1.'")
    snapshot = await built(pool, "offline", "offline-rl", order)
    rows = rows_of(snapshot)
    assert snapshot["dropped"] == {"pass_rate": 14 * 3}
    assert len(rows) == (14 * 2 - 1) * 4
    assert {row["pass_rate"] for row in rows} == {0.25, 0.5}
    for row in rows:
        assert row["token_ids"] == list(range(len(row["text"])))
        assert row["logprobs"] == [-0.5] * len(row["text"])
        assert row["prompt_token_ids"] == [1, 2, 3]
        assert row["policy_version"] == 1
        solve, verify = row["segments"]
        assert (solve["reward"], verify["reward"], verify["baseline"]) == (row["reward"], 1.0, 1.0)
        assert solve["baseline"] == pytest.approx(2 * row["pass_rate"] - 1)
    assert (await built(pool, "again", "offline-rl", order))["content_hash"] == snapshot["content_hash"]
    limited = await built(pool, "few", "offline-rl", order, offline_rl={"max_groups": 3})
    assert (limited["rows"], limited["dropped"]["max_groups"]) == (12, 24)


REFUSED: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({"teach": {"rounds_weights": [0, 0]}}, 422, "none below 0 and at least one above"),
    ({"recipe": "s2r", "build": {"keep_probability": [2, 1, 1, 1]}}, 422, "numbers from 0 to 1, not [2.0"),
    ({"recipe": "s2r", "build": {"styles": {"confirmative": -1}}}, 422, "none is below 0"),
    ({"rejection": {}}, 422, "'rejection' is not for recipe 'distill'; leave it out"),
    ({"more_order_ids": [str(uuid4())]}, 422, "'more_order_ids' is not for recipe 'distill'"),
    ({"recipe": "offline-rl", "offline_rl": {"pass_rate_from": 0.9}}, 422, "must not be above"),
    ({"order_id": str(uuid4())}, 404, "There is no order of this campaign"),
    ({"recipe": "rejection", "more_order_ids": [str(uuid4())]}, 404, "There is no order of this campaign"),
    ({"recipe": "s2r", "replay_snapshot_id": str(uuid4())}, 404, "There is no snapshot of this campaign"),
    ({"campaign_id": str(uuid4())}, 404, "There is no campaign"),
)


async def test_what_cannot_be_built_is_refused_with_a_sentence(pool: PoolClient):
    order = await taught(pool)
    for fields, status, sentence in REFUSED:
        answer = await pool.ask("POST", "/v1/snapshots", status, json=request(pool, "x", "distill", order) | fields)
        assert sentence in answer["error"]["message"]
    assert await pool.execute("SELECT 1 FROM pool.snapshots") == []


async def test_an_order_of_another_campaign_is_no_source(pool: PoolClient):
    order = await taught(pool)
    other = pool.campaign
    pool.campaign = str(uuid4())
    await pool.register()
    await pool.ask("POST", "/v1/snapshots", 404, json=request(pool, "x", "distill", order))
    pool.campaign = other
    offline = await built(pool, "offline", "offline-rl", order, offline_rl={"pass_rate_to": 1})
    answer = await pool.ask(
        "POST", "/v1/snapshots", 422, json=request(pool, "x", "s2r", order, replay_snapshot_id=offline["id"])
    )
    assert answer["error"]["code"] == "not_trajectories"


async def test_drafts_of_a_dead_builder_are_removed_and_its_replay_is_checked(pool: PoolClient, tmp_path: Path):
    order = await taught(pool)
    snapshot = await built(pool, "sft-0", "distill", order)
    draft = tmp_path / "snapshots" / f"draft-{snapshot['id']}-dead"
    draft.write_bytes(b"half")
    await pool.execute("UPDATE pool.snapshots SET status = 'building'")
    await pool.execute("UPDATE pool.snapshots SET lease_expires_at = now()")
    async with asyncio.timeout(60):
        while (await pool.ask("GET", f"/v1/snapshots/{snapshot['id']}"))["status"] == "building":
            await asyncio.sleep(0.05)
    assert not draft.exists()
    cut_short(snapshot)
    failed = await built(pool, "sft-1", "s2r", order, replay_snapshot_id=snapshot["id"])
    assert (failed["status"], "is damaged" in failed["error"]) == ("failed", True)


async def test_a_snapshot_of_an_earlier_version_is_not_mixed_in(pool: PoolClient):
    order = await taught(pool)
    snapshot = await built(pool, "sft-0", "distill", order)
    columns = ["question_id", "question", "text", "segments", "rounds"]
    await pool.execute("UPDATE pool.snapshots SET content_hash = :hash", hash=renamed(snapshot, columns))
    build = {"replay_fraction": 0.5}
    failed = await built(pool, "sft-1", "s2r", order, replay_snapshot_id=snapshot["id"], build=build)
    assert (failed["status"], "build it again under another key" in failed["error"]) == ("failed", True)


async def test_a_store_that_cannot_be_written_to_is_tried_again(pool: PoolClient, tmp_path: Path):
    order = await taught(pool)
    (tmp_path / "snapshots").touch()
    snapshot = await pool.ask("POST", "/v1/snapshots", 201, json=request(pool, "sft-0", "distill", order))
    async with asyncio.timeout(60):
        while not snapshot["error"]:
            await asyncio.sleep(0.05)
            snapshot = await pool.ask("GET", f"/v1/snapshots/{snapshot['id']}")
    assert snapshot["status"] == "building"
    assert snapshot["error"].startswith("Snapshot 'sft-0' cannot be written to ")
    (tmp_path / "snapshots").unlink()
    await pool.execute("UPDATE pool.snapshots SET lease_expires_at = now()")
    async with asyncio.timeout(60):
        while (snapshot := await pool.ask("GET", f"/v1/snapshots/{snapshot['id']}"))["status"] == "building":
            await asyncio.sleep(0.05)
    assert (snapshot["status"], snapshot["error"], snapshot["rows"]) == ("ready", None, 29)
