"""How fast do finished groups become durable? `POST /v1/groups` in Arrow and in JSON against atroposlib's `run-api`, which keeps
them in memory.

Groups of 8 responses with log-probabilities, bodies made beforehand, the same number of groups a request and of requests at once for
all three, one server process each, over HTTP on loopback, in turns. What the pool answered for is on disk (fsync on); it stores the
text and the verdict of each response as well, which the other does not get.
"""

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Annotated

import httpx
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import atropos, rollouts, servers
from benchmarks.result import Result
from shared import arrow
from shared.arrow import hand_in
from shared.contracts.orders import GroupBatch
from shared.packed import PackedGroupIn

TARGETS = {"arrow": 3.0, "json": 1.0}
ATROPOS = "atropos"


def chunks(groups: Sequence[PackedGroupIn], size: int) -> list[Sequence[PackedGroupIn]]:
    """The groups of each request."""
    return [groups[start : start + size] for start in range(0, len(groups), size)]


def json_body(groups: Sequence[PackedGroupIn]) -> bytes:
    """Groups as the pool takes them in JSON."""
    batch = GroupBatch.model_construct(groups=tuple(group.contract() for group in groups))
    return batch.model_dump_json().encode()


async def post_all(
    client: httpx.AsyncClient, path: str, media_type: str, bodies: Sequence[bytes], at_once: int
) -> tuple[float, list[httpx.Response]]:
    """Seconds until all of them are answered, `at_once` at a time; and the answers."""
    waiting = iter(bodies)
    answers: list[httpx.Response] = []

    async def send() -> None:
        for body in waiting:
            answer = await client.post(path, content=body, headers={"Content-Type": media_type})
            answers.append(answer.raise_for_status())

    started = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(at_once)))
    return time.perf_counter() - started, answers


class Contest:
    """The three ways, a round at a time."""

    def __init__(
        self, pool: httpx.AsyncClient, other: httpx.AsyncClient, tokens: int, count: int, batch: int, at_once: int
    ) -> None:
        self._pool, self._other = pool, other
        self._tokens, self._count, self._batch, self._at_once = tokens, count, batch, at_once
        self._rng = np.random.default_rng(0)

    async def groups_per_second(self, way: str) -> float:
        """One round of one way, with new groups."""
        assignments = await rollouts.claim(self._pool, self._count)
        made = chunks(rollouts.groups(assignments, self._tokens, self._rng), self._batch)
        if way == ATROPOS:
            await atropos.begin(self._other, 1 << 20)
            bodies = [atropos.body(groups) for groups in made]
            seconds, _ = await post_all(self._other, "/scored_data_list", "application/json", bodies, self._at_once)
            return self._count / seconds
        is_arrow = way == "arrow"
        bodies = [bytes(hand_in.write(groups)) if is_arrow else json_body(groups) for groups in made]
        media_type = arrow.MEDIA_TYPE if is_arrow else "application/json"
        seconds, answers = await post_all(self._pool, "/v1/groups", media_type, bodies, self._at_once)
        stored = sum(receipt["status"] == "stored" for answer in answers for receipt in answer.json()["receipts"])
        if stored != self._count:
            raise RuntimeError(f"{stored} of {self._count} groups were stored")
        return self._count / seconds


async def contest(
    pool: httpx.AsyncClient, other_url: str, tokens: int, count: int, batch: int, at_once: int, rounds: int
) -> dict[str, list[float]]:
    """Groups per second of each way, in turns; a first round that warms up is left out."""
    measured: dict[str, list[float]] = {"arrow": [], "json": [], ATROPOS: []}
    total = count * len(measured) * (rounds + 1)
    async with pool, httpx.AsyncClient(base_url=other_url, timeout=600, trust_env=False) as other:
        await rollouts.standing_order(pool, min(total, 1000), total)
        run = Contest(pool, other, tokens, count, batch, at_once)
        for _ in range(rounds + 1):
            for way, speeds in measured.items():
                speeds.append(await run.groups_per_second(way))
    return {way: speeds[1:] for way, speeds in measured.items()}


def main(
    tokens: Annotated[int, typer.Option(min=1, help="Tokens a response.")] = 2048,
    count: Annotated[int, typer.Option(min=1, help="Groups a round.")] = 256,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Groups a request.")] = 16,
    at_once: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Measured rounds.")] = 5,
    atropos_python: Annotated[str | None, typer.Option(help="A Python with atroposlib; else one is made.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Groups per second."""
    with (
        atropos.serving(atropos_python) as other_url,
        servers.database() as database_url,
        servers.pool_api(database_url) as pool,
    ):
        measured = asyncio.run(contest(pool, other_url, tokens, count, batch, at_once, rounds))
    reference = statistics.median(measured[ATROPOS])
    table = Table("way", "groups/s", "slowest", "fastest", "ratio", title=f"groups of {rollouts.K} × {tokens:,} tokens")
    for way, speeds in measured.items():
        middle = statistics.median(speeds)
        table.add_row(way, f"{middle:.1f}", f"{min(speeds):.1f}", f"{max(speeds):.1f}", f"{middle / reference:.2f}")
    Console().print(table)
    if as_json:
        typer.echo(Result("pool_ingest", statistics.median(measured["arrow"]), "groups/s", reference, rounds).line())
    if any(statistics.median(measured[way]) < target * reference for way, target in TARGETS.items()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
