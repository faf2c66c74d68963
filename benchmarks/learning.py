"""Does each policy beat the one before? `make demo` over several seeds, pooled.

Every seed is a whole campaign (base → SFT-0 → SFT-1 → RL) in a data directory of its own; a seed whose report by this recipe is there
already is not run again, an unfinished one resumes. The claim: final-answer accuracy rises from stage to stage in the mean, and RL
stands above SFT-1 by more than the 95 % interval of the pooled difference (two independent proportions).
"""

import itertools
import json
import math
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.result import Result
from examples.demos import RECIPES
from shared.contracts.recipe import Recipe

STAGES = ("base", "sft-0", "sft-1", "rl")
COLUMNS = (
    "final_accuracy",
    "first_accuracy",
    "verification_accuracy",
    "error_recall",
    "correct_precision",
    "wrong_to_right",
    "right_to_wrong",
    "mean_rounds",
    "mean_tokens",
    "unparsed_rate",
)


def run_demo(recipe: str, seed: int, data_dir: Path) -> dict[str, Any]:
    """The report of one campaign, run to its success if it is not there yet. `seconds` is the wall clock of this call.

    Raises: BadParameter when the report there is one of another recipe.
    """
    report = data_dir / "report.json"
    if not _is_report_of_success(report, resolved_recipe(RECIPES[recipe].recipe, seed)):
        started = time.monotonic()
        command = ["headwater", "demo", "--recipe", recipe, "--seed", str(seed), "--data-dir", str(data_dir)]
        subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], check=True)
        (data_dir / "benchmark.json").write_text(json.dumps({"seconds": time.monotonic() - started}))
    loaded: dict[str, Any] = json.loads(report.read_text())
    timing = data_dir / "benchmark.json"
    loaded["seconds"] = json.loads(timing.read_text())["seconds"] if timing.exists() else None
    return loaded


def resolved_recipe(path: Path, seed: int) -> Recipe:
    """A recipe file with this seed, every key at its value or its default."""
    content = tomllib.loads(path.read_text(encoding="utf-8")) | {"seed": seed}
    return Recipe.model_validate({key: value for key, value in content.items() if key != "name"})


def _what_is_learned(recipe: Recipe) -> dict[str, Any]:
    """The recipe but for how often it is saved, which only says how much work a crash costs."""
    return recipe.model_dump(exclude={section: {"checkpoint_every_steps"} for section in ("sft0", "sft1", "rl")})


def _is_report_of_success(path: Path, recipe: Recipe) -> bool:
    if not path.exists():
        return False
    report = json.loads(path.read_text())
    if _what_is_learned(Recipe.model_validate(report["recipe"])) != _what_is_learned(recipe):
        raise typer.BadParameter(
            f"{path.parent} holds a report of another recipe: move it away, or name another --directory."
        )
    return bool(report["campaign"]["status"] == "succeeded")


def difference_interval(low_rate: float, high_rate: float, n_low: int, n_high: int) -> float:
    """Half width of the 95 % interval of a difference of two independent proportions."""
    return 1.96 * math.sqrt(low_rate * (1 - low_rate) / n_low + high_rate * (1 - high_rate) / n_high)


def _cell(value: float | None, column: str) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if column.startswith("mean_") else f"{100 * value:.1f} %"


def _table(title: str, rows: list[tuple[str, dict[str, Any]]]) -> Table:
    table = Table(title=title)
    table.add_column("policy")
    table.add_column("n", justify="right")
    for column in COLUMNS:
        table.add_column(column.replace("_", " "), justify="right")
    for name, stage in rows:
        table.add_row(name, str(stage["n"]), *(_cell(stage.get(column), column) for column in COLUMNS))
    return table


def _pooled(stages: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean over seeds of each column, weighted by n. Raises: ValueError for a seed without a final accuracy."""
    if not stages or any(stage.get("final_accuracy") is None for stage in stages):
        raise ValueError(
            "a seed has no final accuracy for one of its policies: its eval was skipped or is not complete"
        )
    total = sum(stage["n"] for stage in stages)
    pooled: dict[str, Any] = {"n": total}
    for column in COLUMNS:
        known = [(stage[column], stage["n"]) for stage in stages if stage.get(column) is not None]
        pooled[column] = sum(value * n for value, n in known) / sum(n for _, n in known) if known else None
    return pooled


def main(
    recipe: Annotated[str, typer.Option(help="The demo to run.")] = "tiny",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 3,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them; the others follow.")] = 0,
    directory: Annotated[Path, typer.Option(help="One data directory a seed is kept below this one.")] = Path(
        ".headwater-benchmarks"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Run the demo over several seeds and compare the policies."""
    console = Console(width=160)
    numbers = range(first_seed, first_seed + seeds)
    reports = [run_demo(recipe, seed, directory / f"{recipe}-seed{seed}") for seed in numbers]
    by_stage: dict[str, list[dict[str, Any]]] = {name: [] for name in STAGES}
    for seed, report in zip(numbers, reports, strict=True):
        rows = [(stage["stage"], stage) for stage in report["stages"]]
        minutes = f", {report['seconds'] / 60:.1f} minutes" if report["seconds"] else ""
        console.print(_table(f"seed {seed}{minutes}", rows))
        for name, stage in rows:
            by_stage[name].append(stage)
    pooled = {name: _pooled(stages) for name, stages in by_stage.items()}
    console.print(_table(f"{seeds} seeds pooled", list(pooled.items())))
    rates = [pooled[name]["final_accuracy"] for name in STAGES]
    half_width = difference_interval(rates[2], rates[3], pooled["sft-1"]["n"], pooled["rl"]["n"])
    rising = all(low < high for low, high in itertools.pairwise(rates))
    console.print(
        f"RL − SFT-1: {100 * (rates[3] - rates[2]):+.1f} points, 95 % interval ± {100 * half_width:.1f}; "
        f"base < SFT-0 < SFT-1 < RL in the mean: {'yes' if rising else 'NO'}"
    )
    if as_json:
        result = Result("learning", 100 * (rates[3] - rates[2]), "points", 100 * half_width, pooled["rl"]["n"])
        typer.echo(result.line())
    if not rising or rates[3] - rates[2] <= half_width:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
