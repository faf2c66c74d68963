"""How much does the pool's API grow over one request of a million items?

Each body goes to the API in a process of its own: questions that are all new, as gzip NDJSON; items that are none, as lines and as
one JSON array; and lists of wrong items where groups and leases are expected, which are refused: as many as asked for, and as many as
are read (a body of more values than that is refused unread). Its memory is read from /proc ten times a second. The claim: at no time
more than 250 MB above what it took before the first.
"""

import json
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Annotated
from uuid import uuid4

import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import made_questions as made
from benchmarks.memory import Watch, pool_process
from benchmarks.result import Result
from shared.json_shape import MAX_VALUES

REFERENCE_MB = 250.0
ITEMS_AT_ONCE = 500
_GZIP = 16 + zlib.MAX_WBITS
NDJSON, JSON = {"Content-Type": "application/x-ndjson"}, {"Content-Type": "application/json"}


def lines(items: int) -> Iterator[bytes]:
    """So many questions, some lines together."""
    for first in range(0, items, ITEMS_AT_ONCE):
        yield made.ndjson([made.question(number) for number in range(first, min(first + ITEMS_AT_ONCE, items))])


def packed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """As one gzip member."""
    pack = zlib.compressobj(level=1, wbits=_GZIP)
    for piece in pieces:
        yield pack.compress(piece)
    yield pack.flush()


def ways(items: int) -> dict[str, Callable[[httpx.Client, str], httpx.Response]]:
    """The requests, by what they are."""
    wrong = b",".join([b"{}"] * items)
    few = b",".join([b"{}"] * (MAX_VALUES // 2 - 10))

    def questions(body: Iterator[bytes], headers: dict[str, str]) -> Callable[[httpx.Client, str], httpx.Response]:
        where = "/v1/questions"
        return lambda http, campaign: http.post(where, params={"campaign": campaign}, content=body, headers=headers)

    def refused(path: str, field: str, some: bytes) -> Callable[[httpx.Client, str], httpx.Response]:
        body = b'{"%s":[%s]}' % (field.encode(), some)
        return lambda http, _: http.post(path, content=body, headers=JSON)

    broken = (b"{}\n" * ITEMS_AT_ONCE for _ in range(items // ITEMS_AT_ONCE))
    return {
        "new questions, gzip NDJSON": questions(packed(lines(items)), NDJSON | {"Content-Encoding": "gzip"}),
        "lines that are no questions": questions(broken, NDJSON),
        "a JSON array of no questions": questions(iter([b"[", wrong, b"]"]), JSON),
        "groups that are none": refused("/v1/groups", "groups", wrong),
        "leases that are none": refused("/v1/assignments/heartbeat", "leases", wrong),
        "groups that are none, fewer": refused("/v1/groups", "groups", few),
        "leases that are none, fewer": refused("/v1/assignments/heartbeat", "leases", few),
    }


def said(answer: httpx.Response) -> str:
    """What became of it, in some words."""
    body = answer.json()
    counts = {name: body[name] for name in ("accepted", "duplicate", "refused") if body.get(name)}
    return json.dumps(counts) if answer.is_success else f"{answer.status_code} {body['error']['code']}"


def main(
    items: Annotated[int, typer.Option(min=ITEMS_AT_ONCE, help="Items a request.")] = 1_000_000,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Start, send, watch."""
    table = Table(title=f"{items:,} items a request")
    for name in ("request", "answer", "seconds", "RSS at most, MB", "growth, MB"):
        table.add_column(name, justify="left" if name in ("request", "answer") else "right")
    peaks, samples = [], 0
    with pool_process() as pool, httpx.Client(base_url=pool.url, timeout=None, trust_env=False) as http:
        campaign = str(uuid4())
        http.put(f"/v1/campaigns/{campaign}/settings", json={"name": "items"}).raise_for_status()
        http.post("/v1/questions", params={"campaign": campaign}, json=[made.question(-1)]).raise_for_status()
        before = Watch(pool.process.pid).before
        for name, send in ways(items).items():
            started = time.monotonic()
            with Watch(pool.process.pid) as watch:
                answer = send(http, campaign)
            seconds = time.monotonic() - started
            peaks.append(watch.rss)
            samples += watch.samples
            table.add_row(name, said(answer), f"{seconds:,.1f}", f"{watch.rss:,.0f}", f"{watch.rss - before:,.0f}")
    Console(width=160).print(table)
    if as_json:
        typer.echo(Result("million_items", max(peaks) - before, "MB", REFERENCE_MB, samples).line())


if __name__ == "__main__":
    typer.run(main)
