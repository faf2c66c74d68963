"""Fills a pool by copying rows: whatever columns a table has, they come from one row that the pool itself has written.

Limits: the rows are as good as the one that is copied; what the pool keeps elsewhere for a question (its counters apart) is not made.
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

QUIET_S = 3.0
SETTLE_DEADLINE_S = 3600.0
SETTLE_POLL_S = 0.5


async def copy_rows(database_url: str, campaign: str, order: str, questions: int, groups: int) -> None:
    """So many more questions of the campaign, and groups of the order to the first of these, in one transaction."""
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    async with connection.transaction():
        await _copy_questions(connection, campaign, questions)
        await _copy_groups(connection, order, groups)
        await connection.execute(
            "INSERT INTO pool.counters (scope, name, value) SELECT $1::uuid, * FROM unnest($2::text[], $3::bigint[])",
            campaign,
            ["train", "state:candidate", "groups", "responses"],
            [questions, questions, groups, 2 * groups],
        )
        await connection.execute(
            "INSERT INTO pool.counters (scope, name, value) SELECT $1::uuid, * FROM unnest($2::text[], $3::bigint[])",
            order,
            ["total", "done"],
            [groups, groups],
        )
    await connection.close()


async def _copy_questions(connection: Any, campaign: str, count: int) -> None:
    text = "md5(turn::text) || ' ' || md5('a' || turn) || ' ' || md5('b' || turn)"
    values = {"id": "gen_random_uuid()", "text": text, "text_hash": f"sha256(convert_to({text}, 'UTF8'))"}
    one = f"(SELECT * FROM pool.questions WHERE campaign_id = '{campaign}' AND state = 'candidate' LIMIT 1) t"
    await _copy(connection, "questions", values, f"generate_series(1, {count}) turn, {one}")


async def _copy_groups(connection: Any, order: str, count: int) -> None:
    """One assignment, group, pass rate and all responses for each of `count` questions."""
    await connection.execute(
        f"""
        CREATE TEMP TABLE copied ON COMMIT DROP AS
        SELECT id AS of_question, gen_random_uuid() AS of_assignment, gen_random_uuid() AS of_group FROM pool.questions
        WHERE state = 'candidate' ORDER BY position LIMIT {count}
        """
    )
    one = f"(SELECT * FROM pool.{{table}} WHERE order_id = '{order}' LIMIT 1) t"
    question = {"question_id": "of_question"}
    rows = {
        "assignments": question | {"id": "of_assignment"},
        "groups": question | {"id": "of_group", "assignment_id": "of_assignment"},
        "pass_rates": question,
    }
    for table, values in rows.items():
        await _copy(connection, table, values, f"copied, {one.format(table=table)}")
    both = f"(SELECT * FROM pool.responses WHERE group_id = (SELECT id FROM {one.format(table='groups')})) t"
    await _copy(connection, "responses", {"group_id": "of_group"}, f"copied, {both}")


async def _copy(connection: Any, table: str, values: dict[str, str], source: str) -> None:
    columns = await connection.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'pool' AND table_name = $1 "
        "AND is_identity = 'NO' AND is_generated = 'NEVER' ORDER BY ordinal_position",
        table,
    )
    names = [column["column_name"] for column in columns]
    chosen = ", ".join(values.get(name, f't."{name}"') for name in names)
    into = ", ".join(f'"{name}"' for name in names)
    await connection.execute(f"INSERT INTO pool.{table} ({into}) SELECT {chosen} FROM {source}")


async def settle(database_url: str) -> None:
    """Statistics and visibility as autovacuum would make them, and whatever the pool does in the background done."""
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    async with asyncio.timeout(SETTLE_DEADLINE_S):
        while await _behind(connection):
            await asyncio.sleep(SETTLE_POLL_S)
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute("CHECKPOINT")
    await connection.close()


async def _behind(connection: Any) -> bool:
    """Whether the index of the questions' texts is still being filled."""
    last = await connection.fetchval("SELECT max(position) FROM pool.questions")
    return bool((await connection.fetchval("SELECT coalesce(max(position), 0) FROM pool.question_texts")) < (last or 0))
