"""How fast are verdicts, and does one that hangs hold the others up? The service's API beside bare math-verify in one process.

`cold`: answers that neither has seen, in turns; the service has two workers. `warm`: the same batch once more, from the cache. Then
batches of many answers of which a few hang, as a stream, beside the same batch without them: the time to the last of the others.
"""

import json
import logging
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import servers
from benchmarks.made_answers import STANDARD, Case, cases
from benchmarks.result import Result
from benchmarks.verifier_truth import bare
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import VerdictBatch, VerdictOutcome, VerdictRequest
from tests.faults.servers import KillableValkey

TARGETS = {"cold": 1.8, "warm": 50.0}
HANGING = Case("hanging", r"\frac{x}{3}", "9^{9^{9}}", False)
HELD_UP = 1.2
DEADLINE_S = 5


def batch(judged: Sequence[Case]) -> bytes:
    """The body of one request; ids are places."""
    items = tuple(
        VerdictRequest(
            id=str(at), kind=QuestionKind.MATH, reference=case.reference, response=f"\\boxed{{{case.answer}}}"
        )
        for at, case in enumerate(judged)
    )
    return VerdictBatch(items=items).model_dump_json().encode()


def judge(client: httpx.Client, body: bytes) -> tuple[float, list[str]]:
    """Seconds, and the outcomes in order."""
    started = time.perf_counter()
    answer = client.post("/v1/verdicts", content=body, headers={"Content-Type": "application/json"})
    seconds = time.perf_counter() - started
    return seconds, [item["verdict"]["outcome"] for item in answer.raise_for_status().json()["items"]]


def until_others(client: httpx.Client, judged: Sequence[Case]) -> tuple[float, int]:
    """Seconds until the last verdict of what does not hang came, and how many of the others timed out."""
    hanging = {str(at) for at, case in enumerate(judged) if case.form == HANGING.form}
    last, late = 0.0, 0
    started = time.perf_counter()
    headers = {"Content-Type": "application/json", "Accept": "application/x-ndjson"}
    with client.stream("POST", "/v1/verdicts", content=batch(judged), headers=headers) as answer:
        for line in answer.iter_lines():
            item = json.loads(line)
            if item["id"] in hanging:
                late += item["verdict"]["unscored_reason"] == "timeout"
            else:
                last = time.perf_counter() - started
    return last, late


def main(
    count: Annotated[int, typer.Option(min=10, help="Answers a turn.")] = 400,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that are counted.")] = 7,
    many: Annotated[int, typer.Option(min=20, help="Answers of a batch with some that hang.")] = 1000,
    hang: Annotated[int, typer.Option(min=1, help="How many of them hang.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON a claim.")] = False,
) -> None:
    """Verdicts a second, cold and warm, and what hanging answers cost the others."""
    logging.disable(logging.WARNING)
    rates: dict[str, list[float]] = {"bare": [], "cold": [], "warm": []}
    times: dict[str, list[float]] = {"without": [], "with": []}
    differences, late = 0, 0
    with tempfile.TemporaryDirectory() as directory:
        valkey = KillableValkey(Path(directory) / "valkey")
        environment = {
            "HEADWATER_SERVICE_TOKEN": servers.TOKEN,
            "HEADWATER_REDIS_URL": f"redis://127.0.0.1:{valkey.port}/0",
            "HEADWATER_VERIFICATION_WORKERS": "2",
            "HEADWATER_VERIFICATION_DEADLINE_S": str(DEADLINE_S),
        }
        try:
            with servers.api("services.verification.main:create_app", "/health/ready", environment) as url:
                token = {"X-Headwater-Service-Token": servers.TOKEN}
                with httpx.Client(base_url=url, headers=token, timeout=600, trust_env=False) as client:
                    for number in range(rounds + 1):
                        made = cases(number, STANDARD)
                        judged = [next(made) for _ in range(count)]
                        cold_s, outcomes = judge(client, batch(judged))
                        warm_s, again = judge(client, batch(judged))
                        assert again == outcomes
                        started = time.perf_counter()
                        expected = [bare(case) for case in judged]
                        bare_s = time.perf_counter() - started
                        if number:  # the first turn warms up
                            for name, seconds in (("bare", bare_s), ("cold", cold_s), ("warm", warm_s)):
                                rates[name].append(count / seconds)
                            pairs = zip(expected, outcomes, strict=True)
                            differences += sum(
                                one is not VerdictOutcome.UNSCORED and one.value != other for one, other in pairs
                            )
                    for number in range(rounds):
                        made = cases(1000 + number, STANDARD)
                        judged = [next(made) for _ in range(many - hang)]
                        times["without"].append(until_others(client, judged)[0])
                        made = cases(2000 + number, STANDARD)
                        judged = [next(made) for _ in range(many - hang)]
                        for at in range(hang):
                            judged.insert(
                                at * many // hang, HANGING._replace(answer=f"9^{{9^{{9}}}}+{number * hang + at}")
                            )
                        seconds, timed_out = until_others(client, judged)
                        times["with"].append(seconds)
                        late += timed_out
        finally:
            valkey.stop()
    medians = {name: statistics.median(values) for name, values in (rates | times).items()}
    table = Table("", "verdicts/s", "ratio", title=f"{count} mixed answers, {rounds} turns")
    for name in ("bare", "cold", "warm"):
        table.add_row(name, f"{medians[name]:,.0f}", f"{medians[name] / medians['bare']:.2f}")
    console = Console()
    console.print(table)
    console.print(f"verdicts that differ from math-verify's: {differences} of {rounds * count:,}")
    console.print(
        f"{many - hang} answers: {medians['without']:.2f} s without, {medians['with']:.2f} s with {hang} that hang "
        f"({medians['with'] / medians['without']:.2f}×); {late} of {rounds * hang} were unscored: timeout"
    )
    if as_json:
        for name in TARGETS:
            typer.echo(Result(f"verdicts_{name}", medians[name], "verdicts/s", medians["bare"], rounds).line())
        typer.echo(Result("verdicts_beside_hanging", medians["with"], "s", medians["without"], rounds).line())
    is_slow = any(medians[name] < target * medians["bare"] for name, target in TARGETS.items())
    if is_slow or medians["with"] > HELD_UP * medians["without"] or late < rounds * hang:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
