"""How fast do questions come in, compared with a raw COPY into a table with a unique index?

Both on one Postgres with fsync on, in turn: COPY of rows with the same columns by asyncpg, all of them new; and the pool's API in a
process of its own, in which a tenth of the questions is stored already and a tenth is near a stored one (without the comparison of
near texts those are new). Before, as many questions as named are stored: in the table, in a campaign that compares equal texts
only, and in one that compares near ones. The claims: at least 0.25 × of COPY without, 0.05 × with near-duplicates and decontamination.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import made_questions as made
from benchmarks.result import Result
from tests.faults.servers import KillablePool, KillablePostgres, KillableValkey, migrate

FILL_AT_ONCE = 50_000
WAYS = ("copy", "exact, NDJSON", "exact, Arrow", "near, NDJSON", "near, Arrow")
TARGETS = {"exact": 0.25, "near": 0.05}
MEDIA_TYPES = {"NDJSON": "application/x-ndjson", "Arrow": "application/vnd.apache.arrow.stream"}
COLUMNS = ("id", "campaign_id", "text_hash", "text", "answer", "solution", "kind", "split", "domain", "source")
CREATE = """
    CREATE TABLE public.raw (id uuid PRIMARY KEY, campaign_id uuid NOT NULL, text_hash bytea NOT NULL, text text NOT NULL,
        answer text NOT NULL, solution text, kind text NOT NULL, split text NOT NULL, domain text NOT NULL, source text NOT NULL)
"""


@dataclass
class Filled:
    """A database with so many questions in the raw table and in each campaign; `rates`: questions a second by way."""

    stored: int
    url: str
    database_url: str
    campaigns: dict[str, UUID] = field(default_factory=lambda: {"exact": uuid4(), "near": uuid4()})
    rates: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})


@contextmanager
def serving(directory: Path) -> Iterator[tuple[str, str]]:
    """The addresses of a pool and of its database."""
    postgres = KillablePostgres(directory / "postgres")
    valkey = KillableValkey(directory / "valkey")
    try:
        asyncio.run(postgres.until_ready())
        migrate(postgres.url)
        pool = KillablePool(directory, postgres.url, f"redis://127.0.0.1:{valkey.port}/0")
        try:
            pool.until_ready()
            yield pool.url, postgres.url
        finally:
            pool.stop()
    finally:
        valkey.stop()
        postgres.stop()


def submit(filled: Filled, mode: str, body: bytes, media_type: str) -> Any:
    """The report of one submission."""
    response = httpx.post(
        f"{filled.url}/v1/questions",
        params={"campaign": str(filled.campaigns[mode])},
        content=body,
        headers={"Content-Type": media_type},
        timeout=3600,
        trust_env=False,
    )
    response.raise_for_status()
    return response.json()


async def copy(filled: Filled, questions: list[dict[str, Any]]) -> float:
    """Seconds of one COPY with its commit."""
    records = [made.record(filled.campaigns["exact"], one) for one in questions]
    connection = await asyncpg.connect(filled.database_url.replace("+asyncpg", ""))
    try:
        started = time.perf_counter()
        await connection.copy_records_to_table("raw", schema_name="public", columns=COLUMNS, records=records)
        return time.perf_counter() - started
    finally:
        await connection.close()


async def execute(filled: Filled, statement: str) -> None:
    """One statement."""
    connection = await asyncpg.connect(filled.database_url.replace("+asyncpg", ""))
    await connection.execute(statement)
    await connection.close()


def fill(filled: Filled) -> None:
    """Store `stored` questions everywhere."""
    asyncio.run(execute(filled, CREATE))
    for mode, campaign in filled.campaigns.items():
        settings = {"name": mode, "pool": {"near_duplicate_threshold": 0.8 if mode == "near" else 0}}
        path = f"{filled.url}/v1/campaigns/{campaign}/settings"
        httpx.put(path, json=settings, trust_env=False).raise_for_status()
    for first in range(0, filled.stored, FILL_AT_ONCE):
        questions = [made.question(number) for number in range(first, min(first + FILL_AT_ONCE, filled.stored))]
        asyncio.run(copy(filled, questions))
        for mode in filled.campaigns:
            submit(filled, mode, made.arrow(questions), MEDIA_TYPES["Arrow"])
    asyncio.run(execute(filled, "VACUUM ANALYZE"))


def turn(filled: Filled, number: int, count: int) -> None:
    """Each way once, with questions that none of them has seen."""
    for at, way in enumerate(WAYS):
        seed = 1 + number * len(WAYS) + at
        tenth = count // 10
        if way == "copy":
            seconds = asyncio.run(copy(filled, [made.question(one, seed) for one in range(count)]))
        else:
            mode, layout = way.split(", ")
            known = [made.question((seed * tenth + one) % filled.stored) for one in range(2 * tenth)]
            near = [made.nearly(one) for one in known[tenth:]]
            questions = [*known[:tenth], *near, *(made.question(one, seed) for one in range(count - 2 * tenth))]
            body = made.arrow(questions) if layout == "Arrow" else made.ndjson(questions)
            started = time.perf_counter()
            report = submit(filled, mode, body, MEDIA_TYPES[layout])
            seconds = time.perf_counter() - started
            check(report, mode, count, tenth)
        if number:  # the first turn warms up
            filled.rates[way].append(count / seconds)


def check(report: Any, mode: str, count: int, tenth: int) -> None:
    """The figures are of work that was done: every duplicate found, nearly all of the near ones."""
    near = report["near_duplicate"]
    assert report["accepted"] + report["duplicate"] == count, report
    assert report["duplicate"] - near >= tenth, report
    assert near == 0 if mode == "exact" else near >= 0.95 * tenth, report


def table(filled: list[Filled]) -> Table:
    """Medians by way and size."""
    shown = Table(title="questions a second (× COPY)")
    for name in ("stored", *WAYS):
        shown.add_column(name, justify="right")
    for one in filled:
        medians = {way: statistics.median(one.rates[way]) for way in WAYS}
        cells = [f"{medians[way]:,.0f} ({medians[way] / medians['copy']:.2f})" for way in WAYS]
        shown.add_row(f"{one.stored:,}", *cells)
    return shown


def main(
    stored: Annotated[
        int, typer.Option(min=1000, help="Questions stored before; also a tenth and a hundredth.")
    ] = 1_000_000,
    count: Annotated[int, typer.Option(min=100, help="Questions a turn and way.")] = 20_000,
    turns: Annotated[int, typer.Option(min=1, help="Turns that are counted.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON a claim.")] = False,
) -> None:
    """Fill three sizes, one after the other, and measure each."""
    sizes = sorted({max(1000, stored // 100), max(1000, stored // 10), stored})
    done = []
    for size in sizes:
        with (
            tempfile.TemporaryDirectory(prefix="headwater-ingest-", ignore_cleanup_errors=True) as directory,
            serving(Path(directory)) as (url, database_url),
        ):
            filled = Filled(size, url, database_url)
            fill(filled)
            for number in range(turns + 1):
                turn(filled, number, count)
            done.append(filled)
    Console(width=160).print(table(done))
    if as_json:
        rates = done[-1].rates
        reference = statistics.median(rates["copy"])
        for mode in TARGETS:
            value = min(statistics.median(rates[f"{mode}, {layout}"]) for layout in MEDIA_TYPES)
            typer.echo(Result(f"question_ingest_{mode}", value, "questions/s", reference, turns * count).line())


if __name__ == "__main__":
    typer.run(main)
