"""The report of a campaign as JSON, Markdown and a plot; `rendering.py` has the table for the terminal.

In the JSON each stage is flat: a metric's value under its name (null where nothing was counted) and its 95 % interval
under NAME_interval, so that `stages[i]["final_accuracy"]` is a number.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.local.errors import LocalError

if TYPE_CHECKING:
    from shared.contracts.campaigns import Report, ReportStage
    from shared.contracts.metrics import Estimate, TrajectoryMetrics

RATES = (
    "final_accuracy",
    "first_accuracy",
    "verification_accuracy",
    "error_recall",
    "correct_precision",
    "wrong_to_right",
    "right_to_wrong",
    "unparsed_rate",
)
MEANS = ("mean_rounds", "mean_tokens")
METRICS = (*RATES[:7], *MEANS, RATES[7])
STATES = ("candidate", "certain", "hard", "noise", "trivial", "quarantined", "retracted")
MISSING = "–"
LEVELS_TITLE = "Final accuracy % by level (1 easy, 5 hard, by SFT-0's answers)"


def report_json(report: Report) -> dict[str, Any]:
    """The report as plain data."""
    return {
        "campaign": {
            "id": str(report.campaign.id),
            "name": report.campaign.name,
            "status": report.campaign.status.value,
            "stage": report.campaign.stage.value,
            "message": report.campaign.message,
        },
        "stages": [_stage_json(stage) for stage in report.stages],
        "pools": report.pools.model_dump(mode="json"),
        "levels": [levels.model_dump(mode="json") for levels in report.levels],
        "timeline": [
            {
                "name": stage.name.value,
                "status": stage.status.value,
                "done": stage.done,
                "total": stage.total,
                "unit": stage.unit,
                "seconds": _seconds(stage.started_at, stage.finished_at),
            }
            for stage in report.campaign.stages
        ],
        "recipe": report.campaign.recipe.model_dump(mode="json"),
    }


def _seconds(started: Any, finished: Any) -> float | None:
    return (finished - started).total_seconds() if started and finished else None


def _stage_json(stage: ReportStage) -> dict[str, Any]:
    overall = stage.metrics.overall if stage.metrics else None
    by_level = stage.metrics.by_level if stage.metrics else {}
    return {
        "stage": stage.stage,
        "policy": stage.policy,
        **_metrics_json(overall),
        "seconds": stage.seconds,
        "tokens_trained": stage.tokens_trained,
        "tokens_sampled": stage.tokens_sampled,
        "by_level": {str(level): _metrics_json(metrics) for level, metrics in sorted(by_level.items())},
    }


def _metrics_json(metrics: TrajectoryMetrics | None) -> dict[str, Any]:
    flat: dict[str, Any] = {"n": metrics.n if metrics else 0, "unscored": metrics.unscored if metrics else 0}
    for name in METRICS:
        estimate: Estimate | None = getattr(metrics, name) if metrics else None
        counted = estimate is not None and estimate.value is not None
        flat[name] = estimate.value if estimate and counted else None
        flat[f"{name}_interval"] = [estimate.low, estimate.high] if estimate and counted else None
        flat[f"{name}_n"] = estimate.n if estimate else 0
    return flat


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
        table.append([f"after {probe['probe']}", *states, *_levels(probe["levels"])])
    table.append(["now", *(str(now[state]) for state in STATES), *_levels(now["levels"])])
    return table


def _levels(levels: dict[Any, int]) -> list[str]:
    by_name = {str(level): count for level, count in levels.items()}
    return [str(by_name.get(str(level), 0)) for level in range(1, 6)]


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown document."""
    campaign = report["campaign"]
    pools = report["pools"]
    timeline = [["stage", "status", "done", "seconds"]] + [
        [
            stage["name"],
            stage["status"],
            f"{stage['done']:,} of {stage['total']:,} {stage['unit']}".strip(),
            MISSING if stage["seconds"] is None else f"{stage['seconds']:.0f}",
        ]
        for stage in report["timeline"]
    ]
    message = f": {campaign['message']}" if campaign["message"] else ""
    counts = (
        f"{pools['train']:,} training and {pools['eval']:,} held-out questions; {pools['tiny']:,} in the tiny pool; "
        f"{pools['groups']:,} groups with {pools['responses']:,} responses."
    )
    return "\n".join(
        [
            f"# Campaign {campaign['name']}",
            "",
            f"{campaign['status']} (stage {campaign['stage']}){message}. Rates in per cent with 95 % intervals, on held-out questions.",
            "",
            _markdown_table(rows(report)),
            "",
            f"## {LEVELS_TITLE}",
            "",
            _markdown_table(level_rows(report)),
            "",
            "## Pools",
            "",
            counts,
            "",
            _markdown_table(pool_rows(report)),
            "",
            "## Stages",
            "",
            _markdown_table(timeline),
            "",
        ]
    )


def _markdown_table(table: list[list[str]]) -> str:
    header, *body = table
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw accuracies by policy and questions by level into a PNG, SVG or PDF file."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    stages = report["stages"]
    positions = list(range(len(stages)))
    for offset, metric in enumerate(("final_accuracy", "first_accuracy", "verification_accuracy", "error_recall")):
        known = [(x, stage) for x, stage in zip(positions, stages, strict=True) if stage[metric] is not None]
        if not known:
            continue
        values = [100 * stage[metric] for _, stage in known]
        bounds = [stage[f"{metric}_interval"] for _, stage in known]
        below = [value - 100 * bound[0] for value, bound in zip(values, bounds, strict=True)]
        above = [100 * bound[1] - value for value, bound in zip(values, bounds, strict=True)]
        shifted = [x + (offset - 1.5) * 0.06 for x, _ in known]
        left.errorbar(shifted, values, yerr=[below, above], marker="o", capsize=3, label=title(metric))
    left.set(
        xticks=positions,
        xticklabels=[stage["stage"] for stage in stages],
        ylabel="%",
        ylim=(0, 100),
        xlim=(-0.4, len(stages) - 0.6),
    )
    left.set_title("Held-out questions, 95 % intervals")
    left.grid(alpha=0.3)
    if left.get_legend_handles_labels()[0]:
        left.legend(fontsize="small")
    probes = report["levels"]
    bottoms = [0] * len(probes)
    for level in range(1, 6):
        counts = [int(_levels(probe["levels"])[level - 1]) for probe in probes]
        right.bar([probe["probe"] for probe in probes], counts, bottom=bottoms, label=f"level {level}")
        bottoms = [bottom + count for bottom, count in zip(bottoms, counts, strict=True)]
    right.set_title("Training questions by level (1 easy, 5 hard)")
    if probes:
        right.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle(f"Campaign {report['campaign']['name']}")
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise LocalError(f"The plot {path} cannot be written: {error}.") from error
    finally:
        pyplot.close(figure)
