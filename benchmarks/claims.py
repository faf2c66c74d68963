"""How fast is work handed out? Claims through the pool's HTTP API against a bare SKIP LOCKED loop on the same server.

Both hand out batches to concurrent consumers, in turns, from equal tables with equally many open rows: `pool.assignments`, and a copy
with the same columns, rows and indexes whose consumers speak to Postgres themselves and get nothing but the leased rows. The API adds
the question and the order to each, as JSON over loopback, which the consumers read; they and the bare loop share one process.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import httpx
import typer
from pydantic_core import from_json
from rich.console import Console
from rich.table import Table

from benchmarks import servers
from benchmarks.result import Result

QUESTIONS = 10_000
QUESTION_CHARACTERS = 200
TARGET = 0.7
Claim = Callable[[int], Awaitable[int]]

_FILL = """
    INSERT INTO pool.assignments (order_id, question_id, policy_id, policy_version)
    SELECT $1, (ARRAY(SELECT id FROM pool.questions))[1 + n % $3], $2, 1 FROM generate_series(1, $4) AS n
"""
_BARE = """
    UPDATE bare.assignments SET state = 'leased', lease_token = gen_random_uuid(), worker = 'bare', attempts = attempts + 1,
        available_at = now() + interval '3 minutes', claimed_at = now()
    WHERE id IN (
        SELECT id FROM bare.assignments WHERE priority = 0 AND available_at <= now()
        ORDER BY available_at, sequence LIMIT $1 FOR UPDATE SKIP LOCKED
    ) RETURNING *
"""


async def fill(connection: asyncpg.Connection, client: httpx.AsyncClient, size: int) -> None:
    """One order with `size` open assignments, and the copy of their table."""
    campaign, policy = str(uuid4()), str(uuid4())
    settings = {"name": "benchmark", "router": {}}
    (await client.put(f"/v1/campaigns/{campaign}/settings", json=settings)).raise_for_status()
    await connection.execute("DROP SCHEMA IF EXISTS bare CASCADE; CREATE SCHEMA bare")
    await connection.execute("TRUNCATE pool.assignments, pool.questions, pool.orders, pool.counters CASCADE")
    await connection.execute(
        """INSERT INTO pool.questions (id, campaign_id, text_hash, text, answer, kind, split, domain, source)
        SELECT gen_random_uuid(), $1, decode(md5(n::text), 'hex'), rpad(n::text, $3, ' and more'), n::text,
            'math', 'train', 'text', 'benchmark' FROM generate_series(1, $2) AS n""",
        *(UUID(campaign), QUESTIONS, QUESTION_CHARACTERS),
    )
    body = {"campaign_id": campaign, "key": "benchmark", "purpose": "probe", "policy_id": policy, "policy_version": 1}
    body |= {"k": 8, "sampling": {}, "selection": {"limit": 1}}
    order = (await client.post("/v1/orders", json=body)).raise_for_status().json()["id"]
    await connection.execute("SET session_replication_role = replica")  # the rows' references are known to be there
    await connection.execute(_FILL, UUID(order), UUID(policy), QUESTIONS, size - 1)
    await connection.execute("CREATE TABLE bare.assignments (LIKE pool.assignments INCLUDING ALL)")
    await connection.execute("INSERT INTO bare.assignments OVERRIDING SYSTEM VALUE SELECT * FROM pool.assignments")
    await connection.execute("VACUUM (ANALYZE)")
    await connection.execute("CHECKPOINT")


async def rows_per_second(claim: Claim, consumers: int, claims: int, batch: int) -> float:
    """`consumers` at once, `claims` claims each. Raises: RuntimeError when a claim was not full."""

    async def consume() -> None:
        for _ in range(claims):
            if (got := await claim(batch)) != batch:
                raise RuntimeError(f"a claim of {batch} got {got}")

    started = time.perf_counter()
    await asyncio.gather(*(consume() for _ in range(consumers)))
    return consumers * claims * batch / (time.perf_counter() - started)


async def compare(
    url: str, client: httpx.AsyncClient, size: int, rounds: int, consumers: int, batch: int
) -> tuple[list[float], list[float]]:
    """Rows per second of the API and of the bare loop, in turns; a first round that warms up is left out."""
    address = url.replace("+asyncpg", "")
    claims = max(1, min(100, size // (consumers * batch * (rounds + 1))))
    async with asyncpg.create_pool(address, min_size=consumers, max_size=consumers) as connections:
        async with connections.acquire() as connection:
            await fill(connection, client, size)

        async def bare(limit: int) -> int:
            async with connections.acquire() as connection:
                return len(await connection.fetch(_BARE, limit))

        through, without = [], []
        async with aiohttp.ClientSession(
            str(client.base_url), headers=dict(client.headers), raise_for_status=True
        ) as door:

            async def through_api(limit: int) -> int:
                async with door.post("/v1/assignments/claim", json={"worker": "benchmark", "limit": limit}) as answer:
                    return len(from_json(await answer.read())["assignments"])

            for _ in range(rounds + 1):
                through.append(await rows_per_second(through_api, consumers, claims, batch))
                without.append(await rows_per_second(bare, consumers, claims, batch))
    return through[1:], without[1:]


def main(
    sizes: Annotated[str, typer.Option(help="Open assignments, by commas.")] = "10000,100000,1000000",
    rounds: Annotated[int, typer.Option(min=1, help="Measured rounds a size.")] = 7,
    consumers: Annotated[int, typer.Option(min=1)] = 4,
    batch: Annotated[int, typer.Option(min=1, max=1024)] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Claims through the API beside a bare loop, at several sizes."""
    table = Table("open assignments", "API, rows/s", "bare loop, rows/s", "ratio", title=f"{consumers} × {batch}")
    measured = []
    with servers.database() as url, servers.pool_api(url) as client:

        async def measure() -> None:
            async with client:
                for size in map(int, sizes.split(",")):
                    through, without = await compare(url, client, size, rounds, consumers, batch)
                    value, reference = statistics.median(through), statistics.median(without)
                    measured.append((value, reference))
                    table.add_row(f"{size:,}", f"{value:,.0f}", f"{reference:,.0f}", f"{value / reference:.2f}")

        asyncio.run(measure())
    Console().print(table)
    value, reference = measured[-1]
    if as_json:
        typer.echo(Result("claims", value, "rows/s", reference, rounds).line())
    if value < TARGET * reference:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
