"""Ways in: NDJSON, JSON and Arrow, gzip or not; near-duplicates, and eval questions that come too late."""

import asyncio
import gzip
import json
from typing import Any
from uuid import UUID, uuid4

import pyarrow as pa
import pytest

from services.pool.repository import batches, campaigns
from services.pool.service.arrow import MEDIA_TYPE
from shared.contracts.batches import BatchLeaseRequest
from shared.db import Database
from tests.integration.pool.client import PoolClient

pytestmark = pytest.mark.integration
LINES = {"Content-Type": "application/x-ndjson"}
FARMER = (
    "A farmer sells 12 apples and 7 pears on Monday and gives away half of what is left on Tuesday before the market closes; how "
    "many pieces of fruit does the farmer carry home in the evening if nobody buys anything else?"
)
NEARLY = FARMER.replace("the market closes", "the markets close")
OTHER = FARMER.replace("7 pears", "8 pears")


def arrow(rows: list[dict[str, Any]], at_once: int | None = None) -> bytes:
    table = pa.Table.from_pylist(rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=at_once)
    return bytes(sink.getvalue())


async def send(pool: PoolClient, body: bytes, status: int = 200, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    where = {"campaign": pool.campaign}
    return await pool.ask("POST", "/v1/questions", status, params=where, content=body, headers=LINES | named)


def questions(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"question": f"What is {at}+1?", "answer": str(at + 1)} for at in range(first, first + count)]


async def test_every_way_in_stores_the_same(pool: PoolClient):
    rows = [{**question, "kind": "numeric", "source": "test", "solution": None} for question in questions(25)]
    rows[3]["split"] = "eval"
    for row in rows:
        row.setdefault("split", "train")
    lines = "\n".join(map(json.dumps, rows)).encode()
    assert (await send(pool, arrow(rows, 10), Content_Type=MEDIA_TYPE))["accepted"] == 25
    ways: list[tuple[bytes, dict[str, str]]] = [
        (lines, {}),
        (gzip.compress(lines), {"Content_Encoding": "gzip"}),
        (json.dumps(rows).encode(), {"Content_Type": "application/json"}),
        (gzip.compress(arrow(rows)), {"Content_Type": MEDIA_TYPE, "Content_Encoding": "gzip"}),
    ]
    for body, headers in ways:
        assert (await send(pool, body, 200, **headers))["duplicate"] == 25
    for name, body in {"q.arrow": arrow(rows), "q.ndjson.gz": gzip.compress(lines), "q": lines}.items():
        where = {"campaign": pool.campaign}
        report = await pool.ask("POST", "/v1/questions", params=where, files={"file": (name, body)})
        assert report["duplicate"] == 25
    stored = await pool.execute("SELECT text, answer, solution, kind, split, source FROM pool.questions ORDER BY text")
    expected = sorted(
        tuple(row[name] for name in ("question", "answer", "solution", "kind", "split", "source")) for row in rows
    )
    assert [tuple(row) for row in stored] == expected
    counts = await pool.pools()
    assert (counts["train"], counts["eval"], counts["candidate"]) == (24, 1, 24)


async def test_a_cut_body_says_what_of_it_is_stored(pool: PoolClient):
    lines = "\n".join(json.dumps(question | {"source": uuid4().hex}) for question in questions(9000)).encode()
    packed = gzip.compress(lines)
    for body, headers in (
        (packed[: len(packed) // 2], {"Content_Encoding": "gzip"}),
        (arrow(questions(9000, 20_000), 1000)[:-200], {"Content_Type": MEDIA_TYPE}),
    ):
        [(before,)] = await pool.execute("SELECT count(*) FROM pool.questions")
        answer = await send(pool, body, 400, **headers)
        [(now,)] = await pool.execute("SELECT count(*) FROM pool.questions")
        assert answer["error"]["code"] in ("gzip_truncated", "arrow_truncated")
        assert f"{now - before:,} accepted, 0 known, 0 refused" in answer["error"]["message"]
        assert now - before > 1000
    assert (await send(pool, packed, Content_Encoding="gzip"))["refused"] == 0


async def test_bodies_that_are_something_else_are_refused_whole(pool: PoolClient):
    for body, status, code, headers in (
        (b"not gzip", 400, "gzip_broken", {"Content_Encoding": "gzip"}),
        (b"", 400, "gzip_truncated", {"Content_Encoding": "gzip"}),
        (b"x", 415, "unsupported_encoding", {"Content_Encoding": "br"}),
        (b"not arrow", 400, "arrow_broken", {"Content_Type": MEDIA_TYPE}),
        (b"", 400, "arrow_truncated", {"Content_Type": MEDIA_TYPE}),
        (arrow([{"question": "q", "answer": 1}]), 422, "arrow_schema", {"Content_Type": MEDIA_TYPE}),
        (gzip.compress(b"[" * 100_000_000), 413, "gzip_bomb", {"Content_Encoding": "gzip"}),
    ):
        answer = await send(pool, body, status, **headers)
        assert answer["error"]["code"] == code
    assert (await pool.pools())["train"] == 0


async def test_bad_items_by_the_hundred_thousand_are_counted_and_the_good_one_goes_in(pool: PoolClient):
    body = b"1\n" * 60_000 + json.dumps({"question": "Good", "answer": "1"}).encode() + b"\n{" * 1000
    report = await send(pool, body)
    assert (report["accepted"], report["refused"], len(report["refusals"])) == (1, 61_000, 1000)


async def test_hostile_text_is_refused_or_kept_as_it_is(pool: PoolClient):
    texts = [
        "\u202eright to left",
        "\U0010ffff",
        "a" + "\u0301" * 500,
        "\ufeff?",
        "\u0000",
        "\ud800",
        "﷽" * 1000,
        "a" + "\u0301\u0323" * 49_000,
        "\u0f73" * 33_000,
        "x" * 100_000,
        "x" * 100_001,
        "x" * 1_000_000,
        "\x1b[2J",
    ]
    report = await pool.submit([{"question": text, "answer": text[:100]} for text in texts])
    assert (report["accepted"], report["refused"]) == (9, 4)
    assert [refusal["reason"] for refusal in report["refusals"]] == [
        "nul_character",
        "invalid_field",
        "invalid_field",
        "too_large",
    ]
    stored = await pool.execute("SELECT text FROM pool.questions ORDER BY position")
    assert [row.text for row in stored] == [
        text for text in texts if text not in ("\u0000", "\ud800") and len(text) <= 100_000
    ]


async def test_a_near_duplicate_names_the_question_that_is_kept(pool: PoolClient):
    await pool.submit([{"question": FARMER, "answer": "9"}])
    report = await pool.submit(
        [
            {"question": NEARLY, "answer": " 9"},
            {"question": OTHER, "answer": "10"},
            {"question": NEARLY.upper(), "answer": "9"},
            {"question": NEARLY, "answer": "a dozen"},
            {"question": NEARLY, "answer": "9", "kind": "numeric"},
            {"question": OTHER.replace("the market", "that market"), "answer": "10"},
        ]
    )
    assert (report["accepted"], report["duplicate"], report["near_duplicate"], report["refused"]) == (3, 3, 3, 0)
    stored = await pool.execute("SELECT id, answer, kind FROM pool.questions ORDER BY position")
    assert [(row.answer, row.kind) for row in stored] == [
        ("9", "math"),
        ("10", "math"),
        ("a dozen", "math"),
        ("9", "numeric"),
    ]
    found = [(near["line"], near["question_id"], near["similarity"] >= 0.8) for near in report["near_duplicates"]]
    assert found == [(1, str(stored[0].id), True), (3, str(stored[0].id), True), (6, str(stored[1].id), True)]
    assert (await pool.pools())["train"] == 4


async def test_sums_that_differ_by_a_number_or_a_sign_are_all_taken(pool: PoolClient):
    sums = [f"Calculate {a} {sign} {b} - 5." for a in range(1, 20) for b in range(1, 20) for sign in "+-*"]
    report = await pool.submit([{"question": text, "answer": "1"} for text in sums])
    assert (report["accepted"], report["duplicate"]) == (len(sums), 0)


async def test_a_train_question_near_an_eval_question_is_refused(pool: PoolClient):
    await pool.submit([{"question": FARMER, "answer": "9", "split": "eval"}])
    report = await pool.submit([{"question": NEARLY, "answer": "another"}, {"question": OTHER, "answer": "10"}])
    assert (report["accepted"], report["refused"]) == (1, 1)
    [refusal] = report["refusals"]
    [(eval_id,)] = await pool.execute("SELECT id FROM pool.questions WHERE split = 'eval'")
    assert (refusal["line"], refusal["reason"]) == (1, "eval_leak")
    assert f"nearly the eval question {eval_id} (" in refusal["message"]
    together = await pool.submit(
        [
            {"question": f"{NEARLY} Please.", "answer": "1"},
            {"question": f"{NEARLY} Please!", "answer": "1", "split": "eval"},
        ]
    )
    assert (together["accepted"], [refusal["line"] for refusal in together["refusals"]]) == (1, [1])


async def test_an_eval_question_that_comes_later_quarantines_and_lists_what_was_touched(pool: PoolClient):
    exact = {"question": "Is it equal?", "answer": "1"}
    await pool.submit([{"question": FARMER, "answer": "9"}, exact, {"question": OTHER, "answer": "10"}])
    order = await pool.order("rollout", watermark_groups=3)
    await pool.answer_all()
    run = str(uuid4())
    lease = {"order_id": order["id"], "run_id": run, "step": 0, "fence": 1, "groups": 3, "policy_version": 1}
    await pool.ask("POST", "/v1/batches/lease", json=lease | {"max_staleness": 0})
    late = [{"question": NEARLY, "answer": "9", "split": "eval"}, exact | {"split": "eval"}]
    report = await pool.submit(late)
    assert (report["accepted"], report["quarantined"]) == (2, 2)
    stored = {
        row.text: str(row.id) for row in await pool.execute("SELECT id, text FROM pool.questions WHERE split = 'train'")
    }
    listed = {quarantine["question_id"]: quarantine for quarantine in report["quarantines"]}
    assert set(listed) == {stored[FARMER], stored["Is it equal?"]}
    assert [quarantine["runs"] for quarantine in report["quarantines"]] == [[run], [run]]
    assert (listed[stored[FARMER]]["line"], listed[stored["Is it equal?"]]["similarity"]) == (1, 1.0)
    events = await pool.execute("SELECT question_id, to_state, reason FROM pool.question_events")
    assert {(str(row.question_id), row.to_state, row.reason) for row in events} == {
        (question_id, "quarantined", "eval_leak") for question_id in listed
    }
    counts = await pool.pools()
    assert (counts["train"], counts["eval"], counts["quarantined"]) == (1, 2, 2)
    assert (await pool.order("probe"))["total"] == 1
    assert (await pool.submit(late))["quarantined"] == 0


async def test_what_came_in_without_comparison_is_compared_with_what_comes_later(pool: PoolClient):
    settings = {"name": "test", "pool": {"near_duplicate_threshold": 0}}
    await pool.ask("PUT", f"/v1/campaigns/{pool.campaign}/settings", json=settings)
    report = await pool.submit([{"question": FARMER, "answer": "9"}, {"question": NEARLY, "answer": "9"}])
    assert (report["accepted"], report["near_duplicate"]) == (2, 0)
    [(bands,)] = await pool.execute("SELECT count(*) FROM pool.near_bands")
    assert bands == 0
    await pool.ask("PUT", f"/v1/campaigns/{pool.campaign}/settings", json={"name": "test"})
    await pool.submit(10)
    report = await pool.submit([{"question": f"{NEARLY} Please.", "answer": "9"}])
    assert (report["accepted"], report["near_duplicate"]) == (0, 1)
    [(missing,)] = await pool.execute(
        "SELECT count(*) FROM pool.questions q WHERE (SELECT count(*) FROM pool.near_bands b WHERE b.question_id = q.id) <> 8"
    )
    assert missing == 0


async def test_a_threshold_that_finds_nothing_is_refused(pool: PoolClient):
    settings = {"name": "test", "pool": {"near_duplicate_threshold": 0.3}}
    answer = await pool.ask("PUT", f"/v1/campaigns/{pool.campaign}/settings", 422, json=settings)
    assert "= 0 (off) or from 0.5 to 1" in answer["error"]["message"]


async def test_two_submissions_at_once_see_each_other(pool: PoolClient):
    train = {"question": FARMER, "answer": "9"}
    late = {"question": NEARLY, "answer": "9", "split": "eval"}
    many = questions(6000)
    one, other = await asyncio.gather(pool.submit([*many, train]), pool.submit([late, *many]))
    assert one["accepted"] + other["accepted"] == 6002 - one["refused"]
    counts = await pool.pools()
    assert (counts["train"], counts["eval"]) == (6000, 1)
    assert one["refused"] + counts["quarantined"] == 1


async def waiting(pool: PoolClient, *tasks: asyncio.Task[Any]) -> None:
    """Until one of these waits for a lock, or one is over."""
    blocked = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    while not any(task.done() for task in tasks) and not await pool.execute(blocked):
        await asyncio.sleep(0.02)


async def test_what_comes_in_without_comparison_beside_a_submission_is_compared_with_it(pool: PoolClient):
    database = Database(pool.database_url)
    async with database.transaction() as session:
        await campaigns.lock_ingest(session, UUID(pool.campaign))
        submission = asyncio.create_task(pool.submit([{"question": NEARLY, "answer": "9", "split": "eval"}]))
        await waiting(pool, submission)
        connection = await session.connection()
        await connection.exec_driver_sql("UPDATE pool.campaigns SET near_position = 0")
        await connection.exec_driver_sql(
            "INSERT INTO pool.questions (id, campaign_id, text_hash, text, answer, kind, split, domain, source) "
            "SELECT gen_random_uuid(), id, 'hash', $1, '9', 'math', 'train', 'text', '' FROM pool.campaigns",
            (FARMER,),
        )
    assert (await submission)["quarantined"] == 1
    await database.close()
    bands = await pool.execute("SELECT count(*) FROM pool.near_bands GROUP BY question_id")
    assert [count for (count,) in bands] == [8, 8]


async def test_submissions_that_wait_for_each_other_leave_connections_to_others(pool: PoolClient):
    database = Database(pool.database_url)
    async with database.transaction() as session:
        await campaigns.lock_ingest(session, UUID(pool.campaign))
        many = [asyncio.create_task(pool.submit(questions(3, 3 * at))) for at in range(40)]
        await waiting(pool, *many)
        for _ in range(40):
            await pool.pools()
    reports = await asyncio.gather(*many)
    await database.close()
    assert sum(report["accepted"] for report in reports) == 120


async def test_an_eval_question_that_comes_during_a_lease_lists_its_run(pool: PoolClient):
    await pool.submit([{"question": FARMER, "answer": "9"}])
    order = await pool.order("rollout", watermark_groups=1)
    await pool.answer_all()
    run, order_id, batch_id = uuid4(), UUID(order["id"]), uuid4()
    lease = BatchLeaseRequest(
        order_id=order_id, run_id=run, step=0, fence=1, groups=1, policy_version=1, max_staleness=0
    )
    database = Database(pool.database_url)
    async with database.transaction() as session:
        await batches.lock_order(session, order_id)
        taken = await batches.oldest_waiting(session, order_id, 1, 1)
        await batches.lease(session, batch_id, lease, taken)
        submission = asyncio.create_task(pool.submit([{"question": NEARLY, "answer": "9", "split": "eval"}]))
        await waiting(pool, submission)
    await database.close()
    assert [quarantine["runs"] for quarantine in (await submission)["quarantines"]] == [[str(run)]]


async def test_waiting_groups_of_an_exposed_question_are_dropped_at_once(pool: PoolClient):
    await pool.submit([{"question": FARMER, "answer": "9"}])
    order = await pool.order("rollout", watermark_groups=1)
    await pool.answer_all()
    await pool.submit([{"question": NEARLY, "answer": "9", "split": "eval"}])
    [group] = await pool.execute("SELECT consumption, drop_reason FROM pool.groups")
    assert tuple(group) == ("dropped", batches.UNUSABLE)
    [(counted,)] = await pool.execute(
        "SELECT sum(value) FROM pool.counters WHERE scope = :scope AND name = 'dropped:question-unusable'",
        scope=order["id"],
    )
    assert counted == 1
