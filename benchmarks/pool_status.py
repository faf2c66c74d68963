"""What does it cost to ask how things stand? The pool's counts, an order's progress and /metrics at three sizes.

The tables are filled as a long campaign fills them: questions, finished assignments, waiting groups, and counters with a tail of
deltas that nobody has folded yet. Every size is a database of its own, all are asked in turns, and so is atroposlib's /status-env
with its queue (with `--no-atropos` the smallest size is the reference).
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

from benchmarks import atropos, filling, servers
from benchmarks.result import Result

TARGET_MS = 5.0
FLAT = 1.5
UNFOLDED = 2_000  # deltas of a second of 200 writers
REFERENCE_QUEUE = 20_000
GROUP_SIZE = 8
Ask = tuple[httpx.AsyncClient, str, str, dict[str, Any]]

_QUESTIONS = """
    INSERT INTO pool.questions (id, campaign_id, text_hash, text, answer, kind, split, domain, source, state, level)
    SELECT gen_random_uuid(), $1, decode(md5(n::text), 'hex'), 'What is ' || n || ' + 1?', n::text, 'math', 'train', 'text', 'b',
        (ARRAY['candidate', 'hard', 'certain'])[1 + n % 3], 1 + n % 5
    FROM generate_series(1, $2) AS n
"""
_ASSIGNMENTS = """
    INSERT INTO pool.assignments (order_id, question_id, policy_id, policy_version, state, available_at, finished_at)
    SELECT $1, id, $1, 1, 'done', NULL, now() FROM pool.questions LIMIT $2
"""
_GROUPS = """
    INSERT INTO pool.groups (id, assignment_id, order_id, question_id, policy_id, policy_version, scored, correct, unscored,
        tokens, late, consumption)
    SELECT gen_random_uuid(), id, order_id, question_id, policy_id, 1, 8, 4, 0, 64, false, 'waiting' FROM pool.assignments
"""
_COUNTERS = """
    INSERT INTO pool.counters (scope, name, value)
    SELECT scope, name, 1 FROM unnest($1::uuid[], $2::text[]) AS one (scope, name), generate_series(1, $3)
"""


async def fill(url: str, client: httpx.AsyncClient, questions: int, groups: int) -> tuple[str, str]:
    """A campaign with a standing order whose groups all wait; returns the ids of both."""
    campaign = str(uuid4())
    (await client.put(f"/v1/campaigns/{campaign}/settings", json={"name": "b", "router": {}})).raise_for_status()
    body = {
        "campaign_id": campaign,
        "key": "b",
        "purpose": "rollout",
        "policy_id": campaign,
        "policy_version": 1,
        "k": 8,
    }
    body |= {"sampling": {}, "watermark_groups": max(1, groups), "selection": {"states": ["noise"]}}
    order = (await client.post("/v1/orders", json=body)).raise_for_status().json()["id"]
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute("SET session_replication_role = replica")  # the rows' references are known to be there
        await connection.execute(_QUESTIONS, UUID(campaign), questions)
        await connection.execute(_ASSIGNMENTS, UUID(order), groups)
        await connection.execute(_GROUPS)
    finally:
        await connection.close()
    await filling.settle(url)
    return campaign, order


async def unfold(url: str, campaign: str, order: str) -> None:
    """A tail of deltas as writers leave it; the pool folds it about once a second."""
    campaign_names = [*(f"state:{state}" for state in ("candidate", "hard", "certain")), "train", "groups", "responses"]
    names = [*((campaign, name) for name in (*campaign_names, *(f"level:{level}" for level in range(1, 6))))]
    names += [(order, name) for name in ("total", "done", "tokens")]
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        scopes, of = [UUID(scope) for scope, _ in names], [name for _, name in names]
        await connection.execute(_COUNTERS, scopes, of, UNFOLDED // len(names))
    finally:
        await connection.close()


async def queue_up(client: httpx.AsyncClient, groups: int) -> None:
    """atroposlib with one environment (number 0) and `groups` small groups in its queue."""
    await atropos.begin(client, GROUP_SIZE)
    (await client.get("/batch")).raise_for_status()  # its trainer has started
    own = {"max_token_length": 16, "desired_name": "b", "weight": 1.0, "group_size": GROUP_SIZE}
    (await client.post("/register-env", json=own)).raise_for_status()
    tokens = [[1] * 16] * GROUP_SIZE
    group = {"tokens": tokens, "masks": tokens, "scores": [1.0] * GROUP_SIZE, "env_id": 0}
    for start in range(0, groups, 500):
        body = [group] * min(500, groups - start)
        (await client.post("/scored_data_list", json=body)).raise_for_status()


async def milliseconds(ask: Ask) -> float:
    """One request."""
    client, method, path, request = ask
    started = time.perf_counter()
    (await client.request(method, path, **request)).raise_for_status()
    return 1000 * (time.perf_counter() - started)


async def in_turns(
    asks: dict[tuple[str, str], Ask], tails: list[tuple[str, str, str]], rounds: int
) -> dict[Any, float]:
    """Median milliseconds of each, after one round that warms up; every second there are new deltas."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in asks}
    next_tail = time.monotonic()
    for _ in range(rounds + 1):
        if time.monotonic() >= next_tail:
            next_tail = time.monotonic() + 1.0
            for tail in tails:
                await unfold(*tail)
        for key, ask in asks.items():
            times[key].append(await milliseconds(ask))
    return {key: statistics.median(values[1:]) for key, values in times.items()}


def _sizes(text: str) -> list[tuple[int, int]]:
    return [(int(questions), int(groups)) for questions, groups in (size.split(":") for size in text.split(","))]


def main(
    sizes: Annotated[str, typer.Option(help="QUESTIONS:GROUPS, by commas.")] = "1000:100,100000:10000,1000000:100000",
    rounds: Annotated[int, typer.Option(min=5)] = 100,
    with_atropos: Annotated[bool, typer.Option("--atropos/--no-atropos", help="Ask atroposlib as well.")] = True,
    atropos_python: Annotated[
        str | None, typer.Option(help="A Python that has atroposlib; otherwise one is made.")
    ] = None,
    atropos_queue: Annotated[int, typer.Option(help="Groups in atroposlib's queue.")] = REFERENCE_QUEUE,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Status at several sizes, in turns."""
    with ExitStack() as stack:
        pools = []
        for questions, groups in _sizes(sizes):
            url = stack.enter_context(servers.database())
            pools.append((url, stack.enter_context(servers.pool_api(url)), questions, groups))
        reference_url = None
        if with_atropos:
            reference_url = stack.enter_context(atropos.serving(atropos_python))

        async def measure() -> dict[Any, float]:
            asks: dict[tuple[str, str], Ask] = {}
            tails = []
            for url, client, questions, groups in pools:
                campaign, order = await fill(url, client, questions, groups)
                size = f"{questions:,} questions, {groups:,} groups"
                tails.append((url, campaign, order))
                asks[size, "pools"] = (client, "GET", "/v1/pools", {"params": {"campaign": campaign}})
                asks[size, "order"] = (client, "GET", f"/v1/orders/{order}", {})
                asks[size, "metrics"] = (client, "GET", "/metrics", {})
            if reference_url is not None:
                reference = httpx.AsyncClient(base_url=reference_url, trust_env=False, timeout=600)
                await queue_up(reference, atropos_queue)
                asks[f"atroposlib, {atropos_queue:,} groups", "status-env"] = (
                    reference, "GET", "/status-env", {"json": {"env_id": 0}}
                )  # fmt: skip
            return await in_turns(asks, tails, rounds)

        medians = asyncio.run(measure())
    table = Table("", "asked for", "median, ms", title=f"status, {rounds} rounds")
    for (size, what), median in medians.items():
        table.add_row(size, what, f"{median:.2f}")
    Console().print(table)
    pool_medians = [median for (_, what), median in medians.items() if what == "pools"]
    order_medians = [median for (_, what), median in medians.items() if what == "order"]
    value = max(pool_medians[-1], order_medians[-1])
    smallest = max(pool_medians[0], order_medians[0])
    reference = list(medians.values())[-1] if with_atropos else smallest
    if as_json:
        typer.echo(Result("pool_status", value, "ms", reference, rounds).line())
    if value > TARGET_MS or value > FLAT * smallest:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
