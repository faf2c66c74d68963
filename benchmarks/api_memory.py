"""How much memory does the pool's API take while gigabytes of questions stream through it?

One NDJSON body of so many gigabytes goes to the API in a process of its own, as fast as it is taken: nine of ten lines are stored
already, the others are broken, or new (one in a hundred). Its memory is read from /proc ten times a second: RSS, and PSS, in
which pages that other processes use too are shared out. The claim: never more than 400 MB.
"""

import time
from collections.abc import Iterator
from typing import Annotated
from uuid import uuid4

import httpx
import typer
from rich.console import Console

from benchmarks import made_questions as made
from benchmarks.memory import Watch, pool_process
from benchmarks.result import Result

REFERENCE_MB = 400.0
GIGABYTE = 1_000_000_000
KNOWN_LINES = 20_000
LINES_AT_ONCE = 500
SOLUTION_REPEATS = 20


def line(number: int, seed: int = 0) -> bytes:
    """A question with a long solution, of about 6 kB."""
    one = made.question(number, seed)
    return made.ndjson([one | {"solution": " ".join([one["solution"]] * SOLUTION_REPEATS)}])


def body(size_bytes: int) -> Iterator[bytes]:
    """About so many bytes of lines."""
    known = [line(number) for number in range(KNOWN_LINES)]
    sent = turn = 0
    while sent < size_bytes:
        start = turn * LINES_AT_ONCE % KNOWN_LINES
        lines = known[start : start + LINES_AT_ONCE]
        lines[::10] = [one[: len(one) // 2] + b"\n" for one in lines[::10]]
        lines[5::100] = [line(turn * LINES_AT_ONCE + at, 1) for at in range(len(lines[5::100]))]
        part = b"".join(lines)
        yield part
        sent += len(part)
        turn += 1


def send(url: str, size_bytes: int) -> dict[str, int]:
    """The report of the whole stream."""
    campaign = str(uuid4())
    with httpx.Client(base_url=url, timeout=None, trust_env=False) as http:
        http.put(f"/v1/campaigns/{campaign}/settings", json={"name": "memory"}).raise_for_status()
        headers = {"Content-Type": "application/x-ndjson"}
        answer = http.post("/v1/questions", params={"campaign": campaign}, content=body(size_bytes), headers=headers)
        answer.raise_for_status()
        report: dict[str, int] = answer.json()
        return report


def main(
    gigabytes: Annotated[float, typer.Option(min=0.01, help="How much streams through.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Start, stream, watch."""
    with pool_process() as pool:
        started = time.monotonic()
        with Watch(pool.process.pid) as watch:
            report = send(pool.url, int(gigabytes * GIGABYTE))
        seconds = time.monotonic() - started
    Console(width=160).print(
        f"{gigabytes:g} GB in {seconds:,.0f} s: {report['accepted']:,} accepted, {report['duplicate']:,} known, "
        f"{report['refused']:,} refused; at most {watch.rss:,.0f} MB RSS, {watch.pss:,.0f} MB PSS ({watch.samples} samples)"
    )
    if as_json:
        typer.echo(Result("api_memory", watch.rss, "MB", REFERENCE_MB, watch.samples).line())


if __name__ == "__main__":
    typer.run(main)
