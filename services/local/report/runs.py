"""The runs of a report as plain data: where each stands, and every logged point by its name.

A value that a step has none of (it was no number, or nothing was seen for it) is null, so that all names have as many as there are steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.contracts.runs import Run, RunMetric

# A trainer's point of step 0 counts what the run trains on; curves begin with the first step.
COUNTED = 0


def run_json(run: Run, points: Iterable[RunMetric]) -> dict[str, Any]:
    """A run with its curves: `steps_logged`, and `values` of each name at these steps.

    `data`: what the trainer counted before the first step; `max_staleness`: the recipe's bound, in versions, where groups are leased.
    """
    logged = list(points)
    curves = [point for point in logged if point.step > COUNTED]
    names = dict.fromkeys(name for point in curves for name in point.values)
    return {
        "id": str(run.id),
        "key": run.key,
        "method": run.method.value,
        "state": run.state.value,
        "failure": run.failure.value if run.failure else None,
        "message": run.message,
        "step": run.step,
        "steps": run.steps,
        "tokens": run.tokens,
        "seconds": (run.finished_at - run.started_at).total_seconds() if run.started_at and run.finished_at else None,
        "max_staleness": run.rl.max_staleness if run.rl and run.order_id else None,
        "data": {name: value for point in logged if point.step <= COUNTED for name, value in point.values.items()},
        "steps_logged": [point.step for point in curves],
        "values": {name: [point.values.get(name) for point in curves] for name in names},
    }


def heading(run: dict[str, Any]) -> str:
    """A run in a line: its key, method and state, how far it came, and what it trained on."""
    parts = [f"{run['method'].upper()}, {run['state']}", f"{run['step']:,} of {run['steps']:,} steps"]
    parts.append(f"{run['tokens']:,} tokens")
    if run["seconds"] is not None:
        parts.append(f"{run['seconds']:,.0f} s")
    parts.extend(f"{count:,.0f} {name.replace('_', ' ')}" for name, count in run["data"].items() if count)
    return f"{run['key']}: {', '.join(parts)}"


def remark(run: dict[str, Any]) -> str:
    """Why a run failed, or what it waits for; why there are no curves. Empty when there is nothing to say."""
    reason = ": ".join(part for part in (run["failure"], run["message"]) if part)
    if run["steps_logged"]:
        return reason
    return f"{reason} (no step was logged)" if reason else "No step was logged."
