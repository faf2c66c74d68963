"""Policies side by side: their metrics as table, pooled over seeds, and how sure a difference is."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from shared.contracts.metrics import TrajectoryMetrics

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
Row = Mapping[str, Any]


def row(metrics: TrajectoryMetrics) -> dict[str, Any]:
    """`n` and the value of each column, None where nothing was counted."""
    return {"n": metrics.n, "unscored": metrics.unscored} | {
        column: getattr(metrics, column).value for column in COLUMNS
    }


def pooled(rows: Sequence[Row]) -> dict[str, Any]:
    """The mean over seeds of each column, weighted by n. Raises: ValueError for a seed without a final accuracy."""
    if not rows or any(one["final_accuracy"] is None for one in rows):
        raise ValueError("a seed has no final accuracy for one of its policies: its eval is not complete")
    result: dict[str, Any] = {"n": sum(one["n"] for one in rows)}
    for column in COLUMNS:
        known = [(one[column], one["n"]) for one in rows if one.get(column) is not None]
        result[column] = sum(value * n for value, n in known) / sum(n for _, n in known) if known else None
    return result


def difference_interval(low: Row, high: Row) -> float:
    """Half width of the 95 % interval of the difference of two final accuracies: two independent proportions."""
    return 1.96 * math.sqrt(sum(one["final_accuracy"] * (1 - one["final_accuracy"]) / one["n"] for one in (low, high)))


def table(title: str, rows: Mapping[str, Row]) -> Table:
    """A row a policy, a column a metric."""
    result = Table(title=title)
    result.add_column("policy")
    result.add_column("n", justify="right")
    for column in COLUMNS:
        result.add_column(column.replace("_", " "), justify="right")
    for name, one in rows.items():
        result.add_row(name, str(one["n"]), *(_cell(one[column], column) for column in COLUMNS))
    return result


def _cell(value: float | None, column: str) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if column.startswith("mean_") else f"{100 * value:.1f} %"
