"""How long does a trainer wait for its batch? `POST /v1/batches/lease` in Arrow against `GET /batch` of atroposlib's `run-api`.

A batch is whole groups of 8 responses with log-probabilities. Measured from the request until the numbers are there as a trainer
takes them: arrays here, lists there, which is what its answer holds. Plain HTTP on loopback, in turns. The pool's lease is a
transaction: staleness is checked, the groups are leased, and it is on disk before it answers.
"""

import asyncio
import statistics
import time
from typing import Annotated
from uuid import uuid4

import httpx
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import atropos, rollouts, servers
from benchmarks.result import Result
from shared import arrow
from shared.arrow import hand_in
from shared.arrow.lease import read
from shared.packed import float32s, int32s

TARGET = 20.0
STORED_AT_ONCE = 16


class Contest:
    """Both ways, a batch at a time."""

    def __init__(self, pool: httpx.AsyncClient, other: httpx.AsyncClient, order: str, tokens: int, groups: int) -> None:
        self._pool, self._other, self._order = pool, other, order
        self._tokens, self._groups = tokens, groups
        self._run, self._step = str(uuid4()), 0
        self._rng = np.random.default_rng(0)

    async def fill(self) -> None:
        """A batch's worth of new groups for each."""
        await atropos.begin(self._other, self._groups * rollouts.K)
        assignments = await rollouts.claim(self._pool, self._groups)
        for start in range(0, self._groups, STORED_AT_ONCE):
            made = rollouts.groups(assignments[start : start + STORED_AT_ONCE], self._tokens, self._rng)
            headers = {"Content-Type": arrow.MEDIA_TYPE}
            answer = await self._pool.post("/v1/groups", content=bytes(hand_in.write(made)), headers=headers)
            answer.raise_for_status()
            (await self._other.post("/scored_data_list", content=atropos.body(made), headers=JSON)).raise_for_status()

    async def lease_s(self) -> float:
        """Seconds until the pool's batch is there; then it is acknowledged."""
        body = {"order_id": self._order, "run_id": self._run, "step": self._step, "fence": 1, "groups": self._groups}
        body |= {"policy_version": 1, "max_staleness": 0}
        started = time.perf_counter()
        answer = await self._pool.post("/v1/batches/lease", json=body, headers={"Accept": arrow.MEDIA_TYPE})
        leased = read(answer.raise_for_status().content)
        arrays = [
            (int32s(response.token_ids), float32s(response.logprobs))
            for group in leased.groups
            for response in group.responses
        ]
        seconds = time.perf_counter() - started
        if len(arrays) != self._groups * rollouts.K or any(len(logprobs) != self._tokens for _, logprobs in arrays):
            raise RuntimeError(f"the pool handed out {len(arrays)} sequences")
        done = {"run_id": self._run, "step": self._step, "fence": 1}
        (await self._pool.post(f"/v1/batches/{leased.batch_id}/ack", json=done)).raise_for_status()
        self._step += 1
        return seconds

    async def other_s(self) -> float:
        """Seconds until the other's batch is there."""
        started = time.perf_counter()
        batch = (
            (await self._other.get("/batch", headers={"Accept-Encoding": "identity"}))
            .raise_for_status()
            .json()["batch"]
        )
        seconds = time.perf_counter() - started
        if sum(len(group["tokens"]) for group in batch) != self._groups * rollouts.K:
            raise RuntimeError("the other handed out another number of sequences")
        return seconds


JSON = {"Content-Type": "application/json"}


async def contest(
    pool: httpx.AsyncClient, other_url: str, tokens: int, groups: int, rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds a batch, in turns; a first round that warms up is left out."""
    async with pool, httpx.AsyncClient(base_url=other_url, timeout=600, trust_env=False) as other:
        order = await rollouts.standing_order(pool, groups, groups)
        run = Contest(pool, other, order, tokens, groups)
        own, others = [], []
        for _ in range(rounds + 1):
            await run.fill()
            own.append(await run.lease_s())
            others.append(await run.other_s())
    return own[1:], others[1:]


def main(
    tokens: Annotated[int, typer.Option(min=1, help="Tokens a response.")] = 2048,
    groups: Annotated[int, typer.Option(min=1, help="Groups a batch.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Measured rounds.")] = 7,
    atropos_python: Annotated[str | None, typer.Option(help="A Python with atroposlib; else one is made.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Seconds from a trainer's request to its batch."""
    with (
        atropos.serving(atropos_python) as other_url,
        servers.database() as database_url,
        servers.pool_api(database_url) as pool,
    ):
        own, others = asyncio.run(contest(pool, other_url, tokens, groups, rounds))
    table = Table("way", "ms", "fastest", "slowest", title=f"{groups * rollouts.K} sequences of {tokens:,} tokens")
    for way, seconds in (("lease, Arrow", own), ("atropos", others)):
        figures = (statistics.median(seconds), min(seconds), max(seconds))
        table.add_row(way, *(f"{1000 * figure:.1f}" for figure in figures))
    value, reference = 1 / statistics.median(own), 1 / statistics.median(others)
    Console().print(table, f"{value / reference:.1f} times as fast")
    if as_json:
        typer.echo(Result("pool_handover", value, "batches/s", reference, rounds).line())
    if value < TARGET * reference:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
