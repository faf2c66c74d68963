"""How much memory does the pool's API take while gigabytes of questions stream through it?

One NDJSON body of so many gigabytes goes to the API in a process of its own, as fast as it is taken: nine of ten lines are stored
already, the others are broken, or new (one in a hundred). Its memory is read from /proc ten times a second: RSS, and PSS, in
which pages that other processes use too are shared out. The claim: never more than 400 MB.
"""

import asyncio
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import httpx
import typer
from rich.console import Console

from benchmarks import made_questions as made
from benchmarks.result import Result
from tests.faults.servers import KillablePool, KillablePostgres, KillableValkey, migrate

REFERENCE_MB = 400.0
GIGABYTE = 1_000_000_000
KNOWN_LINES = 20_000
LINES_AT_ONCE = 500
SOLUTION_REPEATS = 20
SAMPLE_EVERY_S = 0.1


class Watch:
    """The most memory that a process took while it was watched, in MB."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/smaps_rollup")
        self._ended = threading.Event()
        self.rss = self.pss = 0.0
        self.samples = 0

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            fields = dict(line.split(":", 1) for line in self._status.read_text().splitlines()[1:])
            self.rss = max(self.rss, int(fields["Rss"].split()[0]) / 1000)
            self.pss = max(self.pss, int(fields["Pss"].split()[0]) / 1000)
            self.samples += 1

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


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
    with tempfile.TemporaryDirectory(prefix="headwater-memory-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        postgres, valkey = KillablePostgres(directory / "postgres"), KillableValkey(directory / "valkey")
        try:
            asyncio.run(postgres.until_ready())
            migrate(postgres.url)
            pool = KillablePool(directory, postgres.url, f"redis://127.0.0.1:{valkey.port}/0")
            try:
                pool.until_ready()
                started = time.monotonic()
                with Watch(pool.process.pid) as watch:
                    report = send(pool.url, int(gigabytes * GIGABYTE))
                seconds = time.monotonic() - started
            finally:
                pool.stop()
        finally:
            valkey.stop()
            postgres.stop()
    Console(width=160).print(
        f"{gigabytes:g} GB in {seconds:,.0f} s: {report['accepted']:,} accepted, {report['duplicate']:,} known, "
        f"{report['refused']:,} refused; at most {watch.rss:,.0f} MB RSS, {watch.pss:,.0f} MB PSS ({watch.samples} samples)"
    )
    if as_json:
        typer.echo(Result("api_memory", watch.rss, "MB", REFERENCE_MB, watch.samples).line())


if __name__ == "__main__":
    typer.run(main)
