"""Does a list stay as fast when the pool grows? The median of a page of 100 for every filter people use, at three sizes.

Each size is a database of its own behind a pool's API of its own; all lists of all sizes are asked in turns. The reference is the
same page at the smallest size. The result is the worst list: how many times slower it is at the largest size than at the smallest,
each counted as at least FLOOR_MS, for below that a request is all there is to measure.
"""

import asyncio
import statistics
import time
from contextlib import ExitStack
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import servers
from benchmarks.result import Result

FLOOR_MS = 5.0
PAGE = 100
# What is rare is also late: the worst for whoever reads from the beginning.
_QUESTIONS = """
    INSERT INTO pool.questions
        (id, campaign_id, text_hash, text, answer, kind, split, domain, source, state, tiny, level, pass_rate, created_at)
    SELECT gen_random_uuid(), $1, decode(md5(n::text), 'hex'),
        'Lot ' || n || ': ' || md5('a' || n) || ' ' || md5('b' || n) || ' apples and a pear, how many?', n::text,
        CASE WHEN n % 1000 = 999 THEN 'numeric' ELSE 'math' END,
        CASE WHEN n % 10 = 9 THEN 'eval' ELSE 'train' END,
        CASE WHEN n > $2 * 0.99 THEN 'arithmetic' ELSE 'text' END,
        CASE WHEN n > $2 * 0.9 THEN 'late' WHEN n % 2 = 0 THEN 'first' ELSE '' END,
        CASE WHEN n > $2 * 0.98 THEN 'hard' WHEN n % 3 = 0 THEN 'certain' ELSE 'candidate' END,
        n > $2 * 0.995, CASE WHEN n % 3 = 0 THEN 1 + n / 7 % 5 END, CASE WHEN n % 3 = 0 THEN (n % 1009) / 1008.0 END,
        timestamptz '2026-01-01' + make_interval(secs => n)
    FROM generate_series(1, $2::int) AS n
"""
_TEXTS = "INSERT INTO pool.question_texts SELECT campaign_id, position, text FROM pool.questions"
_ASSIGNMENTS = """
    INSERT INTO pool.assignments (order_id, question_id, policy_id, policy_version, state, available_at, reason)
    SELECT $1, id, $1, 1, CASE WHEN position % 500 = 0 THEN 'dead' ELSE 'done' END, NULL,
        CASE WHEN position % 500 = 0 THEN 'engine-away' END
    FROM pool.questions
"""
_EVENTS = """
    INSERT INTO pool.question_events (campaign_id, question_id, from_state, to_state, reason)
    SELECT campaign_id, id, 'candidate', state, CASE WHEN position % 300 = 0 THEN 'eval_leak' ELSE 'probe' END FROM pool.questions
"""


def lists(campaign: str, order: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Each list by what it is called: its path and its filter."""
    filters: tuple[dict[str, Any], ...] = (
        {},
        {"state": "hard"},
        {"state": "certain", "split": "eval"},
        {"level": 3},
        {"tiny": True},
        {"source": "late"},
        {"source": "late", "split": "eval"},
        {"kind": "numeric"},
        {"domain": "arithmetic"},
        {"pass_rate_from": 0.5, "pass_rate_to": 0.501},
        {"sort": "hardest"},
        {"sort": "easiest", "pass_rate_to": 0.3},
        {"created_before": "2026-01-01T00:10:00Z"},
        {"text": "LOT 777:"},
        {"text": "pear"},
        {"text": "zebra"},
    )
    asked = {
        "questions " + " ".join(f"{name}={value}" for name, value in chosen.items()): (
            "/v1/questions",
            {"campaign": campaign, **chosen},
        )
        for chosen in filters
    }
    return asked | {
        "assignments state=dead": (f"/v1/orders/{order}/assignments", {"reason": "engine-away"}),
        "assignments state=leased": (f"/v1/orders/{order}/assignments", {"state": "leased"}),
        "question-events": ("/v1/question-events", {"campaign": campaign}),
        "question-events reason=eval_leak": ("/v1/question-events", {"campaign": campaign, "reason": "eval_leak"}),
        "orders": ("/v1/orders", {"campaign": campaign}),
    }


async def fill(url: str, client: httpx.AsyncClient, questions: int) -> tuple[str, str]:
    """A campaign with an order that has asked each question once; returns the ids of both."""
    campaign = str(uuid4())
    (await client.put(f"/v1/campaigns/{campaign}/settings", json={"name": "b", "router": {}})).raise_for_status()
    body = {"campaign_id": campaign, "key": "b", "purpose": "probe", "policy_id": campaign, "policy_version": 1, "k": 8}
    order = (await client.post("/v1/orders", json=body | {"sampling": {}})).raise_for_status().json()["id"]
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute("SET session_replication_role = replica")  # the rows' references are known to be there
        async with connection.transaction():  # together, or the pool begins to index the texts as well
            await connection.execute(_QUESTIONS, UUID(campaign), questions)
            await connection.execute(_TEXTS)
        await connection.execute(_ASSIGNMENTS, UUID(order))
        await connection.execute(_EVENTS)
        await connection.execute("VACUUM (ANALYZE)")
    finally:
        await connection.close()
    return campaign, order


async def milliseconds(client: httpx.AsyncClient, path: str, filters: dict[str, Any]) -> float:
    """One page."""
    started = time.perf_counter()
    (await client.get(path, params={"limit": PAGE, **filters})).raise_for_status()
    return 1000 * (time.perf_counter() - started)


async def measure(sizes: list[int], rounds: int) -> dict[str, list[float]]:
    """Median milliseconds of each list at each size, asked in turns, after one round that warms up."""
    with ExitStack() as stack:
        clients, asked = [], []
        for size in sizes:
            url = stack.enter_context(servers.database())
            client = stack.enter_context(servers.pool_api(url))
            clients.append(client)
            asked.append(lists(*await fill(url, client, size)))
        times: dict[tuple[str, int], list[float]] = {(name, at): [] for name in asked[0] for at in range(len(sizes))}
        for _ in range(rounds + 1):
            for name, at in times:
                times[name, at].append(await milliseconds(clients[at], *asked[at][name]))
        for client in clients:
            await client.aclose()
    return {name: [statistics.median(times[name, at][1:]) for at in range(len(sizes))] for name in asked[0]}


def main(
    sizes: Annotated[str, typer.Option(help="Questions, by commas, smallest first.")] = "1000,100000,1000000",
    rounds: Annotated[int, typer.Option(min=5)] = 25,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Ask every list at every size."""
    numbers = [int(size) for size in sizes.split(",")]
    measured = asyncio.run(measure(numbers, rounds))
    table = Table(title=f"p50 of a page of {PAGE}, ms, {rounds} rounds")
    table.add_column("list")
    for number in numbers:
        table.add_column(f"{number:,}", justify="right")
    for name, medians in measured.items():
        table.add_row(name, *(f"{median:.1f}" for median in medians))
    Console(width=140).print(table)
    ratios = {name: max(medians[-1], FLOOR_MS) / max(medians[0], FLOOR_MS) for name, medians in measured.items()}
    worst = max(ratios, key=lambda name: ratios[name])
    Console(width=140).print(f"slowest to grow: {worst}, {ratios[worst]:.2f} times")
    if as_json:
        typer.echo(Result("query", measured[worst][-1], "ms", max(measured[worst][0], FLOOR_MS), rounds).line())


if __name__ == "__main__":
    typer.run(main)
