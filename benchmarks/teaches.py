"""What does learning to verify teach? S²R's comparison of methods, on a demo's recipe, over several seeds.

Every seed is a whole campaign (base → SFT-0 → SFT-1 → outcome RL) in a data directory of its own, and then, in the same directory and out
of the same questions: SFT on the solutions only (as many steps as SFT-0 and SFT-1 together), RL by process and offline RL from SFT-1, and
what one would do without verification, GRPO from the solutions-only policy at equal rollouts (the same steps, groups and answers a group).
All answer the same held-out questions greedily. A seed whose figures by this recipe are there is not run again, an unfinished one goes on.

Verifying costs tokens. At equal tokens, a policy without verification answers 8 times at temperature 0.7, and as many of these answers as
the mean tokens of the S²R policy pay for (the nearest whole number, 1 at least) vote: `votes.py`.

The claim: outcome RL stands above solutions only by more than the 95 % interval of the pooled difference (two independent proportions).
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import policies
from benchmarks.methods import GRPO, NAMES, SOLUTIONS_ONLY, VOTERS, WITHOUT_VERIFICATION
from benchmarks.result import Result
from benchmarks.seeds import Seed, measured
from benchmarks.votes import answers_paid

VERIFYING = tuple(name for name in NAMES if name not in ("base", *WITHOUT_VERIFICATION))
EXPECTED = ("sft-0", "sft-1", "outcome-rl")
COMPARED = (
    (SOLUTIONS_ONLY, "sft-1"),
    ("sft-1", "outcome-rl"),
    ("sft-1", "process-rl"),
    ("sft-1", "offline-rl"),
    (GRPO, "outcome-rl"),
    (SOLUTIONS_ONLY, GRPO),
    (SOLUTIONS_ONLY, "outcome-rl"),
)


def main(
    recipe: Annotated[str, typer.Option(help="The demo to run.")] = "tiny",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 3,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them; the others follow.")] = 0,
    directory: Annotated[Path, typer.Option(help="One data directory a seed is kept below this one.")] = Path(
        ".headwater-benchmarks"
    ),
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="A key of the recipe with another value, as in rl.steps=75.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Run the campaign and the other methods over several seeds and compare the policies."""
    console = Console(width=180)
    changed = dict(parse_change(change) for change in changes or [])
    done: list[Seed] = []
    for seed in range(first_seed, first_seed + seeds):
        done.append(measured(recipe, seed, changed, directory, console))
        _show(console, f"seed {seed}", done[-1:])
    rows = _show(console, f"{seeds} seeds pooled", done) if seeds > 1 else _pooled(done)
    gain = _gain(rows, SOLUTIONS_ONLY, "outcome-rl")
    half_width = 100 * policies.difference_interval(rows[SOLUTIONS_ONLY], rows["outcome-rl"])
    rates = [rows[name]["final_accuracy"] for name in EXPECTED]
    console.print(
        f"outcome RL − solutions only: {gain:+.1f} points, 95 % interval ± {half_width:.1f}; "
        f"{' < '.join(EXPECTED)} in the mean: {'yes' if rates == sorted(set(rates)) else 'NO'}"
    )
    if as_json:
        typer.echo(Result("teaches", gain, "points", half_width, rows["outcome-rl"]["n"]).line())
    if gain <= half_width:
        raise typer.Exit(1)


def parse_change(text: str) -> tuple[str, Any]:
    """`section.key=value`; the value is JSON, or else a text. Raises: BadParameter."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"--set {text}: it has to be like rl.steps=75.")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def _pooled(seeds: list[Seed]) -> dict[str, dict[str, Any]]:
    return {name: policies.pooled([seed.rows[name] for seed in seeds]) for name in NAMES}


def _show(console: Console, title: str, seeds: list[Seed]) -> dict[str, dict[str, Any]]:
    rows = _pooled(seeds)
    console.print(policies.table(title, rows))
    console.print(_table_of_differences(f"{title}: differences in points", seeds, rows))
    console.print(_table_at_equal_tokens(f"{title}: at equal tokens", seeds))
    return rows


def _table_of_differences(title: str, seeds: list[Seed], rows: dict[str, dict[str, Any]]) -> Table:
    """Final accuracy of one policy less that of another, with the 95 % interval, and by seed."""
    table = Table(title=title)
    for heading in ("policies", "difference", "by seed"):
        table.add_column(heading)
    for low, high in COMPARED:
        by_seed = [_gain(seed.rows, low, high) for seed in seeds]
        half_width = 100 * policies.difference_interval(rows[low], rows[high])
        differences = ", ".join(f"{gain:+.1f}" for gain in by_seed)
        table.add_row(f"{high} − {low}", f"{_gain(rows, low, high):+.1f} ± {half_width:.1f}", differences)
    return table


def _gain(rows: dict[str, dict[str, Any]], low: str, high: str) -> float:
    return 100 * float(rows[high]["final_accuracy"] - rows[low]["final_accuracy"])


def at_equal_tokens(seed: Seed, verifying: str, voting: str) -> tuple[int, float]:
    """How many answers of `voting` the tokens of `verifying` pay for, and the accuracy of their vote."""
    votes = seed.votes[voting]
    voters = answers_paid(seed.rows[verifying]["mean_tokens"], votes["tokens"], VOTERS)
    return voters, votes["accuracy"][voters - 1]


def _table_at_equal_tokens(title: str, seeds: list[Seed]) -> Table:
    """Each verifying policy beside the votes of those that do not verify: means over seeds, and how many vote in each seed."""
    table = Table(title=title)
    for heading in ("policy", "final accuracy", *(f"vote of {name}" for name in WITHOUT_VERIFICATION)):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    for name in VERIFYING:
        own = [seed.rows[name]["final_accuracy"] for seed in seeds]
        votes = [[at_equal_tokens(seed, name, voting) for seed in seeds] for voting in WITHOUT_VERIFICATION]
        table.add_row(name, f"{100 * sum(own) / len(own):.1f} %", *map(_cell, votes))
    all_of_them = [[(VOTERS, seed.votes[name]["accuracy"][-1]) for seed in seeds] for name in WITHOUT_VERIFICATION]
    table.add_row(f"(all {VOTERS} vote)", "", *map(_cell, all_of_them))
    return table


def _cell(votes: list[tuple[int, float]]) -> str:
    voters = ", ".join(str(count) for count, _ in votes)
    return f"{100 * sum(accuracy for _, accuracy in votes) / len(votes):.1f} % of {voters}"


if __name__ == "__main__":
    typer.run(main)
