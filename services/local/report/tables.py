"""The report's tables as lines of words: a header first. The terminal and Markdown show the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.local.report.content import METRICS, RATES
from services.local.report.curves import bars, panels

if TYPE_CHECKING:
    from services.local.report.curves import Values

STATES = ("candidate", "certain", "hard", "noise", "trivial", "quarantined", "retracted")
MISSING = "–"
LEVELS_TITLE = "Final accuracy % by level (1 easy, 5 hard, by SFT-0's answers)"
BARS_A_CURVE = 30


def cell(stage: dict[str, Any], metric: str) -> str:
    """One metric of one stage for people: value and interval, rates in per cent."""
    value = stage[metric]
    if value is None:
        return MISSING
    low, high = stage[f"{metric}_interval"]
    scale, digits = (100, 1) if metric in RATES else (1, 2)
    interval = "" if low is None or high is None else f" [{low * scale:.{digits}f}, {high * scale:.{digits}f}]"
    return f"{value * scale:.{digits}f}{interval}"


def title(metric: str) -> str:
    """A metric's name for people, with its unit."""
    return metric.replace("_", " ") + (" %" if metric in RATES else "")


def rows(report: dict[str, Any]) -> list[list[str]]:
    """The metrics table: a header, then a row a metric, a column a stage; then seconds and tokens."""
    stages = report["stages"]
    table = [["", *(stage["stage"] for stage in stages)]]
    table.append(["policy", *((stage["policy"] or MISSING)[:12] for stage in stages)])
    table.append(["n", *(str(stage["n"]) for stage in stages)])
    table.extend([title(metric), *(cell(stage, metric) for stage in stages)] for metric in METRICS)
    counts: tuple[tuple[str, str], ...] = (
        ("seconds", "seconds"),
        ("tokens_trained", "tokens trained"),
        ("tokens_sampled", "tokens sampled"),
    )
    for key, label in counts:
        table.append([label, *(MISSING if stage[key] is None else f"{stage[key]:,.0f}" for stage in stages)])
    return table


def level_rows(report: dict[str, Any]) -> list[list[str]]:
    """Final accuracy with its interval and n: a header, then a row a level, a column a stage."""
    stages = report["stages"]
    table = [["", *(stage["stage"] for stage in stages)]]
    for level in map(str, range(1, 6)):
        measured = [stage["by_level"].get(level) for stage in stages]
        table.append([f"level {level}", *(_level_cell(metrics) for metrics in measured)])
    return table


def _level_cell(metrics: dict[str, Any] | None) -> str:
    return f"{cell(metrics, 'final_accuracy')} n={metrics['final_accuracy_n']}" if metrics else MISSING


def pool_rows(report: dict[str, Any]) -> list[list[str]]:
    """The pools: now, and after each probe by state and by level."""
    now = report["pools"]
    table = [["", *STATES, *(f"level {level}" for level in range(1, 6))]]
    for probe in report["levels"]:
        states = (str(probe["states"].get(state, 0)) for state in STATES)
        table.append([f"after {probe['probe']}", *states, *map(str, level_counts(probe["levels"]))])
    table.append(["now", *(str(now[state]) for state in STATES), *map(str, level_counts(now["levels"]))])
    return table


def level_counts(levels: dict[Any, int]) -> list[int]:
    """Questions of levels 1 to 5, whatever the keys are made of."""
    by_name = {str(level): count for level, count in levels.items()}
    return [by_name.get(str(level), 0) for level in range(1, 6)]


def run_rows(run: dict[str, Any]) -> list[list[str]]:
    """The curves of a run, a row each: how it looks, how many steps have a value, the first, last, least and largest."""
    table = [["", "curve", "points", "first", "last", "least", "largest"]]
    for panel, curves in panels(run):
        for name, values in curves.items():
            label = panel.labels[name]
            words = panel.title if len(panel.labels) == 1 else f"{panel.title}: {label}"
            table.append([words, bars(values, BARS_A_CURVE), *_figures(values)])
    return table


def _figures(values: Values) -> list[str]:
    import numpy as np

    known = values[~np.isnan(values)]
    return [f"{len(known):,}", *(number(float(value)) for value in (known[0], known[-1], known.min(), known.max()))]


def number(value: float) -> str:
    """A value of a curve: four digits, or all digits before the point."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"
