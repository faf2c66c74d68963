"""Does the pool slow down as it fills? Its main calls at three sizes, side by side.

Each size has a database and a pool of its own on one Postgres with fsync on, filled with questions and with groups of a probe
(a fifth as many, a few tokens long): `--through api` by the calls themselves, `--through sql` by copying one row of each kind.
The calls are made in turn at every size. The claim: from the smallest to the largest no median grows by more than 1.5.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import asyncpg
import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.filling import copy_rows, settle
from benchmarks.result import Result
from tests.faults.sampler import response
from tests.faults.servers import KillablePool, KillablePostgres, KillableValkey, migrate
from tests.faults.submitter import words

REFERENCE = 1.5
CLAIM, BATCH, INGEST, PAGE = 64, 16, 200, 100
QUESTIONS_A_REQUEST = 20_000
GROUPS_A_REQUEST = 256


class Through(StrEnum):
    """How the pool is filled."""

    API = "api"
    SQL = "sql"


@dataclass
class Filled:
    """A pool with so many questions; `timings` are the seconds of each call, by its name."""

    size: int
    groups: int
    url: str
    database_url: str
    campaign: str = field(default_factory=lambda: str(uuid4()))
    policy: str = field(default_factory=lambda: str(uuid4()))
    run: str = field(default_factory=lambda: str(uuid4()))
    step: int = 0
    submitted: int = 0
    standing: str = ""
    claimed: list[Any] = field(default_factory=list)
    timings: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._http = httpx.Client(base_url=self.url, timeout=1800, trust_env=False)

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """The body of a 2xx answer."""
        response = self._http.request(method, path, **request)
        assert response.is_success, response.text[:500]
        return response.json()

    def submit(self, count: int) -> None:
        """Questions that are like no other."""
        numbers = range(self.submitted, self.submitted + count)
        lines = "\n".join(
            json.dumps({"question": words(self.size, n), "answer": "42", "kind": "exact"}) for n in numbers
        )
        headers = {"Content-Type": "application/x-ndjson"}
        report = self.ask("POST", "/v1/questions", params={"campaign": self.campaign}, content=lines, headers=headers)
        assert report["accepted"] == count, report
        self.submitted += count

    def order(self, key: str, **fields: Any) -> str:
        """A probe, unless `fields` say otherwise."""
        body = {"campaign_id": self.campaign, "key": key, "purpose": "probe", "policy_id": self.policy, "k": 2}
        made = self.ask("POST", "/v1/orders", json=body | {"policy_version": 1, "sampling": {}} | fields)
        return str(made["id"])

    def claim(self, limit: int) -> None:
        """Take up to `limit` assignments in hand."""
        answer = self.ask("POST", "/v1/assignments/claim", json={"worker": "fill", "limit": limit, "lease_s": 3600})
        self.claimed.extend(answer["assignments"])

    def hand_in(self) -> int:
        """Hand in a group for whatever is in hand; returns how many."""
        if not self.claimed:
            return 0
        receipts = self.ask("POST", "/v1/groups", json={"groups": [_group(one) for one in self.claimed]})["receipts"]
        assert {receipt["status"] for receipt in receipts} == {"stored"}, receipts[:3]
        self.claimed = []
        return len(receipts)

    def work(self) -> None:
        """Everything that can be claimed."""
        self.claim(GROUPS_A_REQUEST)
        while self.hand_in():
            self.claim(GROUPS_A_REQUEST)

    def train(self) -> None:
        """Lease a batch and acknowledge it."""
        body = {"order_id": self.standing, "run_id": self.run, "step": self.step, "fence": 1, "groups": BATCH}
        batch = self.ask("POST", "/v1/batches/lease", json=body | {"policy_version": 1, "max_staleness": 0})
        assert batch["batch_id"], f"only {batch['waiting']} groups wait"
        acknowledgement = {"run_id": self.run, "step": self.step, "fence": 1}
        self.ask("POST", f"/v1/batches/{batch['batch_id']}/ack", json=acknowledgement)
        self.step += 1

    def status(self) -> None:
        """What the console asks for."""
        self.ask("GET", "/v1/pools", params={"campaign": self.campaign})
        self.ask("GET", f"/v1/orders/{self.standing}")

    def page(self) -> None:
        """A page of questions that wait for their first probe."""
        query = {"campaign": self.campaign, "state": "candidate", "limit": PAGE}
        assert len(self.ask("GET", "/v1/questions", params=query)["items"]) == PAGE


# In the order of a round: what a batch takes out of the standing order, the next claim makes again.
CALLS: dict[str, Callable[[Filled], object]] = {
    f"ingest of {INGEST} questions": lambda filled: filled.submit(INGEST),
    f"lease and ack of {BATCH} groups": Filled.train,
    f"claim that makes {BATCH} assignments": lambda filled: filled.claim(1),
    f"claim of {CLAIM} assignments": lambda filled: filled.claim(CLAIM - 1),
    f"hand-in of {CLAIM} groups": Filled.hand_in,
    "status of pool and order": Filled.status,
    f"page of {PAGE} questions": Filled.page,
}


def _group(assignment: Any) -> dict[str, Any]:
    return {
        "assignment_id": assignment["id"],
        "lease_token": assignment["lease_token"],
        "policy_id": assignment["policy_id"],
        "responses": [response("correct"), response("incorrect")],
    }


def fill(filled: Filled, through: Through, turns: int) -> None:
    """Questions and groups of a probe, a standing order with groups for every batch, and assignments for every claim."""
    filled.ask("PUT", f"/v1/campaigns/{filled.campaign}/settings", json={"name": "fill"})
    by_calls = (filled.size, filled.groups) if through is Through.API else (2 * PAGE, 1)
    while filled.submitted < by_calls[0]:
        filled.submit(min(QUESTIONS_A_REQUEST, by_calls[0] - filled.submitted))
    probe = filled.order("probe", selection={"limit": by_calls[1]})
    filled.work()
    if through is Through.SQL:
        missing = filled.size - by_calls[0], filled.groups - by_calls[1]
        asyncio.run(copy_rows(filled.database_url, filled.campaign, probe, *missing))
    asyncio.run(settle(filled.database_url))
    counts = filled.ask("GET", "/v1/pools", params={"campaign": filled.campaign})
    assert (counts["train"], counts["groups"]) == (filled.size, filled.groups), counts
    filled.standing = filled.order("standing", purpose="rollout", watermark_groups=BATCH * (turns + 2))
    filled.work()
    filled.order("claims", selection={"limit": CLAIM * turns})
    asyncio.run(settle(filled.database_url))


@contextmanager
def serving(sizes: list[int], share: float) -> Iterator[list[Filled]]:
    """An empty pool for each size."""
    with tempfile.TemporaryDirectory(prefix="headwater-fill-") as name, ExitStack() as stack:
        directory = Path(name)
        postgres = KillablePostgres(directory / "postgres")
        stack.callback(postgres.stop)
        valkey = KillableValkey(directory / "valkey")
        stack.callback(valkey.stop)
        asyncio.run(postgres.until_ready())
        pools = []
        for size in sizes:
            database_url = asyncio.run(_database(postgres.url, f"fill_{size}"))
            migrate(database_url)
            (directory / str(size)).mkdir()
            pool = KillablePool(directory / str(size), database_url, f"redis://127.0.0.1:{valkey.port}/0")
            stack.callback(pool.stop)
            pool.until_ready()
            pools.append(Filled(size, round(size * share), pool.url, database_url))
        yield pools


async def _database(url: str, name: str) -> str:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return f"{url.rpartition('/')[0]}/{name}"


def measure(pools: list[Filled], rounds: int, warm_up: int) -> None:
    """Every call at every size in turn; the first rounds are not kept."""
    for turn in range(warm_up + rounds):
        for name, call in CALLS.items():
            for filled in pools:
                started = time.perf_counter()
                call(filled)
                if turn >= warm_up:
                    filled.timings.setdefault(name, []).append(time.perf_counter() - started)


def main(
    sizes: Annotated[str, typer.Option(help="Questions in the pool, from small to large.")] = "10000,100000,1000000",
    share: Annotated[float, typer.Option(help="Groups for each question.")] = 0.2,
    rounds: Annotated[int, typer.Option(min=1, help="How often each call is measured at each size.")] = 15,
    warm_up: Annotated[int, typer.Option(min=0, help="Rounds before those.")] = 3,
    through: Annotated[Through, typer.Option(help="How the pools are filled.")] = Through.SQL,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Fill, measure, compare the largest with the smallest."""
    console = Console(width=160)
    wanted = [int(size) for size in sizes.split(",")]
    if len(wanted) < 2 or wanted != sorted(set(wanted)) or wanted[0] < 10 * PAGE:
        raise typer.BadParameter(f"--sizes {sizes!r}: name at least two rising numbers of questions from {10 * PAGE}.")
    with serving(wanted, share) as pools:
        for filled in pools:
            started = time.monotonic()
            fill(filled, through, rounds + warm_up)
            console.print(
                f"{filled.size} questions, {filled.groups} groups: filled in {time.monotonic() - started:.0f} s"
            )
        measure(pools, rounds, warm_up)
    table = Table(title=f"median milliseconds of {rounds}, filled through {through}")
    for heading in ("call", *(f"{filled.size} questions" for filled in pools), "growth"):
        table.add_column(heading, justify="left" if heading == "call" else "right")
    growth = {}
    for name in CALLS:
        medians = [1000 * statistics.median(filled.timings[name]) for filled in pools]
        growth[name] = medians[-1] / medians[0]
        table.add_row(name, *(f"{median:.1f}" for median in medians), f"{growth[name]:.2f}×")
    console.print(table)
    worst = max(growth, key=lambda name: growth[name])
    console.print(f"grows most: {worst} ({growth[worst]:.2f}×; {REFERENCE}× at most)")
    if as_json:
        typer.echo(Result("fill", growth[worst], "×", REFERENCE, rounds).line())


if __name__ == "__main__":
    typer.run(main)
