"""The policies and the pools of a campaign as two drawings side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.local.report.tables import level_counts, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

HEIGHT_IN = 4.5


def draw_policies(figure: FigureBase, report: dict[str, Any]) -> None:
    """Accuracies by policy with their intervals, and training questions by level after each probe."""
    margins = {"left": 0.04, "right": 0.93, "bottom": 0.08, "top": 0.86, "wspace": 0.1}
    left, right = figure.subplots(1, 2, gridspec_kw=margins)
    _draw_accuracies(left, report["stages"])
    _draw_levels(right, report["levels"])
    figure.suptitle(f"Campaign {report['campaign']['name']}")


def _draw_accuracies(axes: Axes, stages: list[dict[str, Any]]) -> None:
    positions = list(range(len(stages)))
    for offset, metric in enumerate(("final_accuracy", "first_accuracy", "verification_accuracy", "error_recall")):
        known = [(x, stage) for x, stage in zip(positions, stages, strict=True) if stage[metric] is not None]
        if not known:
            continue
        values = [100 * stage[metric] for _, stage in known]
        bounds = [stage[f"{metric}_interval"] for _, stage in known]
        # A bound may be on the wrong side of its value by a rounding error.
        below = [max(value - 100 * bound[0], 0.0) for value, bound in zip(values, bounds, strict=True)]
        above = [max(100 * bound[1] - value, 0.0) for value, bound in zip(values, bounds, strict=True)]
        shifted = [x + (offset - 1.5) * 0.06 for x, _ in known]
        axes.errorbar(shifted, values, yerr=[below, above], marker="o", capsize=3, label=title(metric))
    axes.set(
        xticks=positions,
        xticklabels=[stage["stage"] for stage in stages],
        ylabel="%",
        ylim=(0, 100),
        xlim=(-0.4, len(stages) - 0.6),
    )
    axes.set_title("Held-out questions, 95 % intervals")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")


def _draw_levels(axes: Axes, probes: list[dict[str, Any]]) -> None:
    bottoms = [0] * len(probes)
    for level in range(1, 6):
        counts = [level_counts(probe["levels"])[level - 1] for probe in probes]
        axes.bar([probe["probe"] for probe in probes], counts, width=0.5, bottom=bottoms, label=f"level {level}")
        bottoms = [bottom + count for bottom, count in zip(bottoms, counts, strict=True)]
    axes.set_title("Training questions by level (1 easy, 5 hard)")
    if probes:
        axes.set_xlim(-0.6, len(probes) - 0.4)
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
