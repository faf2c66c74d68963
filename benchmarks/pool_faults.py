"""Does the pool forget nothing and hand nothing out twice, whatever dies? `kill -9` of Postgres, the pool, samplers and trainers.

Real processes on a real Postgres with fsync on: half of the items are groups of probes, half are leased to trainers that keep a
durable checkpoint a step; Valkey is wiped on the way. The kills are spread over the items by the seed. At the end everything is
counted from the rows and from what the clients were told, not by the pool. The claim: 0 problems.
"""

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.result import Result
from tests.faults.checks import CHECKS, problems
from tests.faults.facts import Evidence
from tests.faults.world import Plan, World, running

SHOWN_PROBLEMS = 5


def _table(world: World, evidence: Evidence, found: dict[str, list[str]]) -> Table:
    kills = ", ".join(f"{count} {victim}" for victim, count in sorted(world.kills.items()))
    table = Table(title=f"{len(evidence.stored.groups)} groups, kill -9 of {kills}; Valkey wiped {world.wipes} times")
    table.add_column("what is counted")
    table.add_column("problems", justify="right")
    for check in CHECKS:
        table.add_row((check.__doc__ or check.__name__).splitlines()[0], str(len(found[check.__name__])))
    return table


def main(
    items: Annotated[int, typer.Option(min=100, help="Groups, of probes and for training together.")] = 20_000,
    kills: Annotated[int, typer.Option(min=4, help="How many processes are killed.")] = 50,
    seed: Annotated[int, typer.Option(help="Decides who is killed at which item.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Run, kill, count."""
    console = Console(width=160)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="headwater-faults-") as directory:
        with running(Plan(items=items, kills=kills, seed=seed), Path(directory)) as world:
            world.run()
            evidence = world.evidence()
        found = problems(evidence)
    console.print(_table(world, evidence, found))
    consumption = Counter(group["drop_reason"] or group["consumption"] for group in evidence.stored.groups)
    statuses = Counter(fact["status"] for fact in evidence.journal if fact["kind"] == "group")
    console.print(
        f"groups: {dict(consumption)}; receipts: {dict(statuses)}; {time.monotonic() - started:.0f} s, seed {seed}"
    )
    for name, sentences in found.items():
        for sentence in sentences[:SHOWN_PROBLEMS]:
            console.print(f"{name}: {sentence}")
    wrong = sum(map(len, found.values()))
    if as_json:
        typer.echo(Result("pool_faults", wrong, "problems", 0, len(evidence.stored.groups)).line())
    if wrong:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
