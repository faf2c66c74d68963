"""Token-level data has daily partitions; whole days go when nothing in them is needed, and only then."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from services.pool.repository import partitions
from services.pool.service.retention import DAYS_AHEAD, Retention
from shared import arrow
from shared.arrow.lease import read
from shared.db import Database
from shared.packed import float32s, int32s
from tests.integration.pool.client import PoolClient
from tests.integration.pool.test_batches import acknowledge, lease, lease_body, standing

pytestmark = pytest.mark.integration
KEEP_DAYS = 14
OLD = timedelta(days=KEEP_DAYS + 2)


@pytest_asyncio.fixture
async def retention(pool: PoolClient) -> AsyncIterator[Retention]:
    """The retention of another replica."""
    database = Database(pool.database_url)
    yield Retention(database, KEEP_DAYS)
    await database.close()


async def age(pool: PoolClient) -> None:
    """Everything stored so far is OLD; its tokens are in the default partition then."""
    for table in ("groups", "group_tokens"):
        await pool.execute(f"UPDATE pool.{table} SET created_at = created_at - interval '{OLD.days} days'")


async def days(pool: PoolClient) -> list[Any]:
    found = await pool.execute("SELECT DISTINCT tableoid::regclass::text, created_at::date FROM pool.group_tokens")
    return [tuple(row) for row in found]


async def test_partitions_are_made_ahead_and_what_fell_beside_them_moves_in(pool: PoolClient, retention: Retention):
    await pool.submit(2)
    await pool.order()
    await pool.answer_all()
    today = datetime.now(UTC).date()
    assert await days(pool) == [(f"pool.group_tokens_{today:%Y%m%d}", today)]
    await age(pool)
    old = today - OLD
    assert await days(pool) == [("pool.group_tokens_default", old)]
    await Retention(retention._database, keep_days=0).tidy()
    assert await days(pool) == [(f"pool.group_tokens_{old:%Y%m%d}", old)]
    async with retention._database.transaction() as session:
        made = await partitions.days(session)
    assert {today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1)} | {old} <= set(made)
    rows = await pool.execute(
        "SELECT DISTINCT attname, attstorage FROM pg_attribute WHERE attrelid = ANY "
        "(SELECT inhrelid FROM pg_inherits WHERE inhparent = 'pool.group_tokens'::regclass) AND atttypid = 'bytea'::regtype"
    )
    assert {row.attstorage for row in rows} == {b"e"}
    assert len(rows) == 4


async def test_an_insert_finds_a_place_without_any_partition(pool: PoolClient):
    await pool.submit(1)
    await pool.order()
    for (name,) in await pool.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'pool.group_tokens'::regclass"
    ):
        if not name.endswith("default"):
            await pool.execute(f"DROP TABLE {name}")
    [assignment] = await pool.answer_all()
    page = await pool.ask("GET", "/v1/groups", params={"question": assignment["question"]["id"]})
    assert page["items"][0]["responses"][0]["token_ids"]


async def test_old_tokens_go_by_the_day_and_text_and_verdicts_stay(pool: PoolClient, retention: Retention):
    await pool.submit(2)
    await pool.order()
    [assignment, _] = await pool.answer_all()
    question = {"question": assignment["question"]["id"]}
    [before] = (await pool.ask("GET", "/v1/groups", params=question))["items"]
    await retention.tidy()
    assert (await pool.ask("GET", "/v1/groups", params=question))["items"] == [before]
    await age(pool)
    await retention.tidy()
    assert await days(pool) == []
    [after] = (await pool.ask("GET", "/v1/groups", params=question))["items"]
    assert after["tokens_expired"] is True
    assert after["prompt_token_ids"] == ""
    for was, now in zip(before["responses"], after["responses"], strict=True):
        assert now == was | {"token_ids": "", "logprobs": "", "token_ends": ""}


async def test_tokens_of_a_waiting_or_leased_group_never_go(pool: PoolClient, retention: Retention):
    order, run = await standing(pool), str(uuid4())
    await pool.answer_all()
    await age(pool)
    batches = [await lease(pool, order, run, step, groups=2) for step in range(2)]
    await retention.tidy()
    old = await days(pool)
    assert len(old) == 1
    for step, batch in enumerate(batches):
        await acknowledge(pool, batch["batch_id"], run, step)
        await retention.tidy()
        assert await days(pool) == old, "two groups wait, and some are leased"
    last = await lease(pool, order, run, 2, groups=2)
    assert all(response["token_ids"] for group in last["groups"] for response in group["responses"])
    await retention.tidy()
    assert await days(pool) == old, "two groups are leased"
    await pool.ask("POST", "/v1/batches/release", json={"run_id": run, "fence": 1, "from_step": 2})
    await retention.tidy()
    assert await days(pool) == old, "two groups wait again"
    again = await lease(pool, order, run, 2, groups=2)
    await acknowledge(pool, again["batch_id"], run, 2)
    await retention.tidy()
    assert await days(pool) == []


async def test_a_lease_is_the_same_in_arrow_and_in_json(pool: PoolClient):
    order, run = await standing(pool), str(uuid4())
    none = await pool.http.post(
        "/v1/batches/lease", json=lease_body(order, run, 0), headers={"Accept": arrow.MEDIA_TYPE}
    )
    assert (read(none.content).batch_id, read(none.content).groups) == (None, [])
    await pool.answer_all()
    plain = await lease(pool, order, run, 0)
    answer = await pool.http.post(
        "/v1/batches/lease", json=lease_body(order, run, 0), headers={"Accept": arrow.MEDIA_TYPE}
    )
    assert answer.headers["content-type"] == arrow.MEDIA_TYPE
    leased = read(answer.content)
    assert leased.contract().model_dump(mode="json") == plain
    response = leased.groups[0].responses[0]
    assert int32s(response.token_ids).tolist() == list(range(response.tokens))
    assert set(float32s(response.logprobs).tolist()) == {-0.5}
