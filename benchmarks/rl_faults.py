"""Does an RL run survive everything? `kill -9` of trainer, worker, engine, generation, pool, samplers, Postgres and Valkey, at random.

Two RL runs from copies of one start, each in everything that `headwater up` runs, vLLM too: one undisturbed, one under kills. The claim:
the killed run ends; counted from the rows nothing was trained twice, skipped, too old or lost; and its policy answers the held-out
questions as well as the other one (the 95 % interval of the difference has 0 in it). A run that is there already is not run again.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import prepared
from benchmarks.killer import Killer, Strike, moments
from benchmarks.policies import difference_interval
from benchmarks.result import Result
from benchmarks.run_lineage import CHECKS, Evidence, Witness, problems
from services.local import postgres
from services.local.report.content import campaign_content
from shared.contracts.campaigns import CampaignStatus

SHOWN_PROBLEMS = 5


def run(home: Path, name: str, killed_by: Callable[[Killer], list[Strike]]) -> dict[str, Any]:
    """One RL run from a copy of the start to the report of its campaign, and what its rows say; kept in `home/NAME.json`."""
    kept = home / f"{name}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    with prepared.copy_of_start(home, name) as running:
        run_id = prepared.run_id(running.campaign())
        assert run_id is not None
        began = time.monotonic()
        running.ask("POST", f"/v1/runs/{run_id}/resume")
        witness = _witness(running, run_id)
        killer = Killer(running, witness, prepared.DEADLINE_S)
        strikes = killed_by(killer)
        running.until("The end of the run", witness.look)
        seconds = time.monotonic() - began
        running.until("The end of the campaign", lambda: _has_succeeded(running))
        evidence = witness.evidence()
        with running.gateway() as gateway:
            campaign = running.campaign()
            assert campaign is not None
            stages = campaign_content(gateway, campaign.id)["stages"]
        restarts = {process.name: process.restarts for process in running.state.processes.values() if process.restarts}
    found = {
        "seconds": seconds,
        "attempts": evidence.run["attempts"],
        "looks": witness.looks,
        "strikes": [asdict(strike) for strike in strikes],
        "restarts": restarts,
        "stages": {stage["stage"]: {key: stage[key] for key in ("n", "final_accuracy")} for stage in stages},
        "evidence": evidence.dump(),
    }
    kept.write_text(json.dumps(found, indent=1))
    return found


def _witness(running: prepared.Running, run_id: UUID) -> Witness:
    url = postgres.url(running.state.ports["postgres"], running.directory.secret("postgres_password"))
    return Witness(url.replace("+asyncpg", ""), run_id)


def _has_succeeded(running: prepared.Running) -> bool:
    campaign = running.campaign()
    return campaign is not None and campaign.status is CampaignStatus.SUCCEEDED


def _table(found: dict[str, dict[str, Any]], wrong: dict[str, dict[str, list[str]]]) -> Table:
    table = Table(title="counted from the rows")
    table.add_column("")
    for name in found:
        table.add_column(name, justify="right")
    for check in CHECKS:
        what = (check.__doc__ or check.__name__).splitlines()[0]
        table.add_row(what, *(str(len(of_run[check.__name__])) for of_run in wrong.values()))
    table.add_row("groups", *(str(len(one["evidence"]["rows"]["groups"])) for one in found.values()))
    for name in ("attempts", "seconds"):
        table.add_row(name, *(f"{one[name]:.0f}" for one in found.values()))
    for stage in ("sft-1", "rl"):
        rates = (one["stages"][stage] for one in found.values())
        table.add_row(
            f"{stage}: final accuracy, held out", *(f"{100 * rate['final_accuracy']:.1f} %" for rate in rates)
        )
    return table


def main(
    kills: Annotated[int, typer.Option(min=1, help="How many processes are killed.")] = 30,
    engine_kills: Annotated[
        int, typer.Option(min=0, help="How many of these are vLLM, which takes minutes to come back.")
    ] = 3,
    seed: Annotated[int, typer.Option(help="Of who is killed when, and of a start that is not prepared yet.")] = 0,
    directory: Annotated[Path, typer.Option(help="Where the start and both runs are kept.")] = Path(
        ".headwater-faults"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Prepare, run undisturbed, run and kill, count."""
    console = Console(width=160)
    home = directory.absolute()
    console.print("the start: a campaign up to RL")
    prepared.prepare(home, seed)
    plan = moments(kills, min(engine_kills, kills), prepared.STEPS, seed)

    def kill(killer: Killer) -> list[Strike]:
        done = []
        for strike in killer.strikes(plan):
            console.print(f"{strike.after_s:6.0f} s, step {strike.step:3}: kill -9 {strike.victim}", highlight=False)
            done.append(strike)
        return done

    console.print("the undisturbed run")
    undisturbed = run(home, "undisturbed", lambda _: [])
    console.print(f"the run under {kills} kills")
    killed = run(home, f"killed-{kills}-seed{seed}", kill)
    _judge(console, undisturbed, killed, as_json=as_json)


def _judge(console: Console, undisturbed: dict[str, Any], killed: dict[str, Any], *, as_json: bool) -> None:
    found = {"undisturbed": undisturbed, "killed": killed}
    wrong = {name: problems(Evidence.restore(one["evidence"])) for name, one in found.items()}
    console.print(_table(found, wrong))
    for name, one in found.items():
        became = Counter(row["drop_reason"] or row["consumption"] for row in one["evidence"]["rows"]["groups"])
        console.print(f"{name}: groups {dict(became)}, restarts {one['restarts']}, {one['looks']} looks")
    victims = Counter(strike["victim"] for strike in killed["strikes"])
    console.print("killed: " + ", ".join(f"{count} × {victim}" for victim, count in victims.most_common()))
    calm, struck = undisturbed["stages"]["rl"], killed["stages"]["rl"]
    difference = struck["final_accuracy"] - calm["final_accuracy"]
    half_width = difference_interval(calm, struck)
    console.print(f"killed − undisturbed: {100 * difference:+.1f} points, 95 % interval ± {100 * half_width:.1f}")
    total = 0
    for of_run in wrong.values():
        for name, sentences in of_run.items():
            total += len(sentences)
            for sentence in sentences[:SHOWN_PROBLEMS]:
                console.print(f"{name}: {sentence}")
    if as_json:
        typer.echo(Result("rl_faults", total, "problems", 0, sum(victims.values())).line())
    if total or abs(difference) > half_width:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
