"""Lists: every filter, page by page, with cursors that stay valid and read no further than their page."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.pool.service.listing import Lists, index_texts
from shared.contracts import listing as contracts
from shared.db import Database
from tests.integration.pool.client import PoolClient, group

pytestmark = pytest.mark.integration


async def pages(pool: PoolClient, path: str, limit: int, **filters: Any) -> list[Any]:
    """All items of a list, `limit` a page."""
    items: list[Any] = []
    after: dict[str, str] = {}
    while True:
        page = await pool.ask("GET", path, params={"limit": limit, **filters, **after})
        items.extend(page["items"])
        assert len(page["items"]) <= limit
        if page["next"] is None:
            return items
        after = {"after": page["next"]}


async def mixed(pool: PoolClient) -> list[str]:
    """Twelve questions that differ in everything one can ask for; the texts in their order."""
    sources = ("gsm8k", "", "aime")
    questions = [
        {
            "question": f"Train {number} of 50% goes to A_{number % 3}?",
            "answer": str(number),
            "source": sources[number % 3],
            "kind": "numeric" if number % 4 == 0 else "math",
            "split": "eval" if number % 6 == 5 else "train",
            "domain": "arithmetic" if number == 7 else "text",
        }
        for number in range(12)
    ]
    await pool.submit(questions)
    await pool.order()
    await pool.answer_all(
        lambda assignment, at: "correct" if at < int(assignment["question"]["answer"]) % 5 else "incorrect"
    )
    return [row.text for row in await pool.execute("SELECT text FROM pool.questions ORDER BY position")]


async def test_questions_by_every_filter(pool: PoolClient):
    texts = await mixed(pool)
    everything = await pages(pool, "/v1/questions", 5, campaign=pool.campaign)
    assert [question["text"] for question in everything] == texts

    async def numbers(**filters: Any) -> list[int]:
        found = await pages(pool, "/v1/questions", 2, campaign=pool.campaign, **filters)
        return [texts.index(question["text"]) for question in found]

    def having(name: str, *values: Any) -> list[int]:
        return [at for at, question in enumerate(everything) if question[name] in values]

    for name, values in {
        "split": ("train", "eval"),
        "state": ("candidate", "certain", "hard", "noise", "trivial"),
        "level": (1, 2, 3, 4, 5),
        "source": ("gsm8k", "", "aime", "nobody"),
        "kind": ("math", "numeric", "exact"),
        "domain": ("text", "arithmetic"),
    }.items():
        for value in values:
            assert await numbers(**{name: value}) == having(name, value), (name, value)
    assert await numbers(tiny=True) == []
    assert len(await numbers(tiny=False)) == 12
    assert await numbers(pass_rate_from=0.25, pass_rate_to=0.5) == having("pass_rate", 0.25, 0.5)
    assert await numbers(state="hard", source="gsm8k") == sorted(
        {*having("state", "hard")} & {*having("source", "gsm8k")}
    )
    rated = [at for at, question in enumerate(everything) if question["pass_rate"] is not None]
    assert rated
    by_rate = sorted(rated, key=lambda at: (everything[at]["pass_rate"], at))
    assert await numbers(sort="hardest") == by_rate
    assert await numbers(sort="easiest") == by_rate[::-1]


async def test_text_is_found_as_written_indexed_or_not(pool: PoolClient):
    texts = await mixed(pool)
    database = Database(pool.database_url)

    async def found(piece: str, **filters: Any) -> list[int]:
        questions = await pages(pool, "/v1/questions", 2, campaign=pool.campaign, text=piece, **filters)
        return [texts.index(question["text"]) for question in questions]

    for _ in ("not indexed", "indexed", "half of it"):
        assert await found("TRAIN 1") == [at for at, written in enumerate(texts) if written.startswith("Train 1")]
        assert await found("50%") == list(range(12))
        assert await found("a_1") == [at for at, written in enumerate(texts) if "A_1" in written]
        assert await found("A__") == await found("5%%") == await found("a\\_1") == []
        assert await found("A_1", kind="numeric") == [texts.index("Train 4 of 50% goes to A_1?")]
        await index_texts(database)
        await pool.submit([{"question": f"later {uuid4()}", "answer": "1"}])
    [(indexed,)] = await pool.execute("SELECT count(*) FROM pool.question_texts")
    assert indexed == 14
    await database.close()
    refused = await pool.ask("GET", "/v1/questions", 422, params={"campaign": pool.campaign, "text": "ab"})
    assert "at least 3 characters" in refused["error"]["message"]
    sorted_ = {"campaign": pool.campaign, "text": "abc", "sort": "hardest"}
    assert (await pool.ask("GET", "/v1/questions", 422, params=sorted_))["error"]["code"] == "text_is_by_position"


async def test_times_are_exact(pool: PoolClient):
    await pool.submit(200)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    await pool.execute(
        "UPDATE pool.questions SET created_at = CAST(:start AS timestamptz) + make_interval(mins => CAST(position * 7 AS int))",
        start=start,
    )
    rows = await pool.execute("SELECT text, created_at FROM pool.questions ORDER BY position")
    for low, high in ((0, 1e6), (700, 707), (300, 900), (1e6, 2e6), (350.5, 351)):
        since, before = start + timedelta(minutes=low), start + timedelta(minutes=high)
        expected = [row.text for row in rows if since <= row.created_at < before]
        times = {"created_from": since.isoformat(), "created_before": before.isoformat()}
        found = await pages(pool, "/v1/questions", 30, campaign=pool.campaign, **times)
        assert [question["text"] for question in found] == expected, (low, high)
    ends = {"created_from": "0001-01-01T00:00:00Z", "created_before": "9999-12-31T23:59:59Z"}
    assert len(await pages(pool, "/v1/questions", 100, campaign=pool.campaign, **ends)) == 200


async def test_a_cursor_stays_valid_while_rows_are_added_and_is_of_one_list_only(pool: PoolClient):
    await pool.submit(4)
    where = {"campaign": pool.campaign, "limit": 3}
    first = await pool.ask("GET", "/v1/questions", params=where)
    await pool.submit([{"question": "added meanwhile", "answer": "1"}])
    second = await pool.ask("GET", "/v1/questions", params=where | {"limit": 100, "after": first["next"]})
    listed = [question["text"] for question in (*first["items"], *second["items"])]
    assert listed == [*(f"Calculate {number}+1." for number in range(4)), "added meanwhile"]

    for change in ({"split": "train"}, {"campaign": str(uuid4())}, {"sort": "hardest"}):
        refused = await pool.ask("GET", "/v1/questions", 422, params=where | change | {"after": first["next"]})
        assert refused["error"]["code"] == "other_cursor", change
        assert refused["error"]["details"][0]["field"] == "after"
    other = await pool.ask("GET", "/v1/orders", 422, params={"campaign": pool.campaign, "after": first["next"]})
    assert other["error"]["code"] == "other_cursor"


def cursor(*parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


async def test_a_cursor_that_is_none_is_refused(pool: PoolClient):
    await pool.submit(4)
    where = {"campaign": pool.campaign, "limit": 3}
    genuine = (await pool.ask("GET", "/v1/questions", params=where))["next"]
    owner = json.loads(base64.urlsafe_b64decode(genuine + "=="))[0]
    forged = [
        *(cursor(owner, key) for key in (-1, 1 << 63, 10**400, "x", 1.5, None, [1])),
        *(cursor(owner), cursor(owner, 1, 2), cursor(), cursor({"a": 1})),
        *("0", "-1", "9" * 400, "\u0000", "\ud7ff", "ü", "=", genuine[:-2], f"{genuine}x", "[" * 400),
    ]
    for after in forged:
        refused = await pool.ask("GET", "/v1/questions", 422, params=where | {"after": after})
        assert refused["error"]["code"] in ("bad_cursor", "invalid_request"), after
    empty = await pool.ask("GET", "/v1/questions", 422, params=where | {"after": ""})
    assert empty["error"]["details"][0]["field"] == "after"


async def test_a_parameter_that_is_not_known_is_named(pool: PoolClient):
    for wrong, said in (
        ({"pass_rate_mn": "0.5"}, "pass_rate_mn"),
        ({"level": "6"}, "level"),
        ({"level": "9" * 60}, "level"),
        ({"state": "done"}, "state"),
        ({"created_from": "2026-01-01T00:00:00"}, "created_from"),
        ({"limit": "0"}, "limit"),
        ({"source": "a\0b"}, "source"),
        ({"text": "a\0bc"}, "text"),
        ({"pass_rate_from": "nan"}, "pass_rate_from"),
        ({"pass_rate_to": "1e999"}, "pass_rate_to"),
    ):
        refused = await pool.ask("GET", "/v1/questions", 422, params={"campaign": pool.campaign} | wrong)
        assert refused["error"]["details"][0]["field"] == said, wrong
    await pool.ask("GET", "/v1/questions", 404, params={"campaign": str(uuid4())})


async def test_groups_events_assignments_orders_and_batches(pool: PoolClient):
    await pool.submit(6)
    order = await pool.order(max_attempts=1)
    claimed = await pool.claim(limit=4)
    failure = {"assignment_id": claimed[0]["id"], "lease_token": claimed[0]["lease_token"], "reason": "engine-away"}
    await pool.ask("POST", "/v1/assignments/fail", json=failure | {"message": "it left"})
    outcomes: tuple[Callable[[Any, int], str] | str, ...] = (
        lambda _, at: "correct" if at else "incorrect",
        "correct",
        "unscored",
    )
    await pool.hand_in(*(group(assignment, outcome) for assignment, outcome in zip(claimed[1:], outcomes, strict=True)))
    await pool.claim(limit=1, worker="second")

    where = f"/v1/orders/{order['id']}/assignments"
    [dead] = await pages(pool, where, 10)
    assert (dead["state"], dead["reason"], dead["message"]) == ("dead", "engine-away", "it left")
    assert len(await pages(pool, where, 1, state="open")) == 1
    [leased] = await pages(pool, where, 10, state="leased")
    assert leased["worker"] == "second"
    assert await pages(pool, where, 10, state="withdrawn") == []
    assert await pages(pool, where, 10, reason="other") == []
    await pool.ask("GET", f"/v1/orders/{uuid4()}/assignments", 404)

    for outcome, number in (("mixed", 1), ("correct", 1), ("unscored", 1), ("incorrect", 0)):
        assert len(await pages(pool, "/v1/groups", 1, order=order["id"], outcome=outcome)) == number
    assert len(await pages(pool, "/v1/groups", 1, policy=pool.policy)) == 3
    assert len(await pages(pool, "/v1/groups", 2, order=order["id"], consumption="none")) == 3
    assert await pages(pool, "/v1/groups", 2, order=order["id"], drop_reason="stale") == []
    assert (await pool.ask("GET", "/v1/groups", 422))["error"]["code"] == "no_filter"

    events = await pages(pool, "/v1/question-events", 1, campaign=pool.campaign)
    assert {(event["from_pool"], event["reason"]) for event in events} == {("candidate", "probe")}
    [one] = await pages(pool, "/v1/question-events", 5, question=events[0]["question_id"])
    assert one == events[0]
    assert await pages(pool, "/v1/question-events", 5, campaign=pool.campaign, reason="probe", to_pool="noise") == []
    assert (await pool.ask("GET", "/v1/question-events", 422))["error"]["code"] == "no_filter"

    rollout = await pool.order("rollout", watermark_groups=2)
    assert [item["id"] for item in await pages(pool, "/v1/orders", 1, campaign=pool.campaign)] == [
        order["id"],
        rollout["id"],
    ]
    [open_] = await pages(pool, "/v1/orders", 5, campaign=pool.campaign, purpose="rollout", state="open")
    assert open_ == rollout
    await pool.answer_all("correct")
    lease = {"order_id": rollout["id"], "run_id": str(uuid4()), "step": 0, "fence": 1, "groups": 1}
    leased = await pool.ask("POST", "/v1/batches/lease", json=lease | {"policy_version": 1, "max_staleness": 1})
    for filters in ({"run": lease["run_id"]}, {"order": rollout["id"], "state": "leased"}):
        [batch] = await pages(pool, "/v1/batches", 1, **filters)
        assert (batch["id"], batch["step"], batch["state"]) == (leased["batch_id"], 0, "leased")
    assert await pages(pool, "/v1/batches", 1, run=lease["run_id"], state="released") == []
    assert (await pool.ask("GET", "/v1/batches", 422))["error"]["code"] == "no_filter"

    body = {"campaign_id": pool.campaign, "key": "s", "recipe": "distill", "order_id": order["id"]}
    snapshot = await pool.ask("POST", "/v1/snapshots", 201, json=body)
    for filters in ({}, {"recipe": "distill"}):
        [listed] = await pages(pool, "/v1/snapshots", 1, campaign=pool.campaign, **filters)
        assert listed["id"] == snapshot["id"]
    assert await pages(pool, "/v1/snapshots", 1, campaign=pool.campaign, recipe="s2r") == []


ROWS = 60_000
FILL = """
    INSERT INTO pool.questions
        (id, campaign_id, text_hash, text, answer, kind, split, domain, source, state, tiny, level, pass_rate, created_at)
    SELECT gen_random_uuid(), :campaign, decode(md5(n::text), 'hex'), 'How many apples are ' || n || ' apples and a pear?', '1',
        CASE WHEN n % 1000 = 999 THEN 'numeric' ELSE 'math' END,
        CASE WHEN n % 10 = 9 THEN 'eval' ELSE 'train' END,
        CASE WHEN n > :rows * 0.99 THEN 'arithmetic' ELSE 'text' END,
        CASE WHEN n > :rows * 0.9 THEN 'late' WHEN n % 2 = 0 THEN 'first' ELSE '' END,
        CASE WHEN n > :rows * 0.98 THEN 'hard' WHEN n % 3 = 0 THEN 'certain' ELSE 'candidate' END,
        n > :rows * 0.995,
        CASE WHEN n % 3 = 0 THEN 1 + n / 7 % 5 END,
        CASE WHEN n % 3 = 0 THEN (n % 1009) / 1008.0 END,
        timestamptz '2026-01-01' + make_interval(secs => n)
    FROM generate_series(1, :rows) AS n
"""
PAGE_BLOCKS = 700  # of the 8 KB each that a page may look at; the table has several thousand
QUESTION_LISTS: tuple[dict[str, Any], ...] = (
    {},
    {"state": "hard"},
    {"state": "hard", "split": "eval"},
    {"split": "eval"},
    {"level": 3},
    {"level": 3, "state": "certain"},
    {"tiny": True},
    {"source": "late"},
    {"source": "nobody"},
    {"source": "late", "split": "eval"},
    {"kind": "numeric"},
    {"kind": "exact"},
    {"domain": "arithmetic"},
    {"pass_rate_from": 0.5, "pass_rate_to": 0.501},
    {"pass_rate_from": 0.2},
    {"sort": "hardest"},
    {"sort": "easiest", "pass_rate_to": 0.3},
    {"sort": "hardest", "level": 2},
    {"created_from": "2026-01-01T16:30:00Z"},
    {"created_before": "2026-01-01T00:01:00Z"},
    {"text": "are 4321 apples"},
    {"text": "pear"},
    {"text": "zebra"},
)


@pytest.fixture
async def filled(database_url: str) -> AsyncIterator[tuple[Database, UUID]]:
    """A campaign with many questions, all indexed; statistics are fresh."""
    database, campaign = Database(database_url), uuid4()
    async with database.transaction() as session:
        await session.execute(
            text("INSERT INTO pool.campaigns (id, name, router) VALUES (:campaign, 'many', '{}')"),
            {"campaign": campaign},
        )
        await session.execute(text(FILL), {"campaign": campaign, "rows": ROWS})
        await session.execute(
            text("INSERT INTO pool.question_texts SELECT campaign_id, position, text FROM pool.questions")
        )
    async with database.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.execute(text("VACUUM ANALYZE pool.questions, pool.question_texts"))
    yield database, campaign
    await database.close()


async def blocks(engine: AsyncEngine, statements: list[tuple[str, Any]]) -> tuple[int, str]:
    """How many blocks these statements look at, and how."""
    looked_at, plans = 0, []
    async with engine.connect() as connection:
        for statement, values in statements:
            explained = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", values)
            [plan] = explained.scalar_one()
            looked_at += plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
            plans.append(json.dumps(plan["Plan"]))
    return looked_at, "\n".join(plans)


async def test_a_page_looks_at_its_rows_and_not_at_the_table(filled: tuple[Database, UUID]):
    database, campaign = filled
    recorded: list[tuple[str, Any]] = []

    @event.listens_for(database.engine.sync_engine, "before_cursor_execute")
    def record(_c: Any, _cursor: Any, statement: str, values: Any, _context: Any, _many: bool) -> None:
        if "pool.question" in statement and not statement.startswith("EXPLAIN"):
            recorded.append((statement, values))

    for filters in QUESTION_LISTS:
        recorded.clear()
        asked = contracts.QuestionListing.model_validate({"campaign": campaign, "limit": 50, **filters})
        await Lists(database).questions(asked)
        looked_at, plans = await blocks(database.engine, list(recorded))
        assert looked_at <= PAGE_BLOCKS, f"{filters} looks at {looked_at} blocks:\n{plans}"
