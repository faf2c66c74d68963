"""The curves of a run as small multiples: a panel a subject, readable with a few points and with thousands."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from services.local.report.curves import BOUNDED, RAW_POINTS, panels, smoothed
from services.local.report.runs import heading, remark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

    from services.local.report.curves import Panel, Values

COLUMNS = 4
_PANEL_IN, _HEADING_IN, _LINE_IN = 2.0, 0.7, 0.25
_REMARK_CHARACTERS, _REMARK_LINES = 190, 4
_LOGARITHMIC_FROM = 10.0


def height_in(run: dict[str, Any]) -> float:
    """What `draw_run` needs, in inches."""
    return _rows(run) * _PANEL_IN + _HEADING_IN + len(_remark_lines(run)) * _LINE_IN


def draw_run(figure: FigureBase, run: dict[str, Any]) -> None:
    """A heading, why the run failed if it did, and a panel of each subject that has points."""
    # What a trainer says may have a $ in it, which is no formula here.
    figure.suptitle(heading(run), x=0.01, ha="left", weight="bold", parse_math=False)
    lines, rows = _remark_lines(run), _rows(run)
    heights = [len(lines) * _LINE_IN, *[_PANEL_IN] * rows] if lines else [_PANEL_IN] * rows
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    if lines:
        said = figure.add_subplot(grid[0, :])
        said.set_axis_off()
        colour = "firebrick" if run["failure"] else "dimgrey"
        said.text(0, 1, "\n".join(lines), va="top", color=colour, fontsize="small", parse_math=False)
    for number, (panel, curves) in enumerate(panels(run)):
        row, column = divmod(number, COLUMNS)
        axes = figure.add_subplot(grid[row + (1 if lines else 0), column])
        _draw_panel(axes, run, panel, curves)


def _rows(run: dict[str, Any]) -> int:
    return -(-len(panels(run)) // COLUMNS)


def _remark_lines(run: dict[str, Any]) -> list[str]:
    return textwrap.wrap(remark(run), _REMARK_CHARACTERS, max_lines=_REMARK_LINES, placeholder=" …")


def _draw_panel(axes: Axes, run: dict[str, Any], panel: Panel, curves: dict[str, Values]) -> None:
    from matplotlib.ticker import MaxNLocator

    steps = run["steps_logged"]
    for number, (name, values) in enumerate(curves.items()):
        colour, label = f"C{number}", panel.labels[name]
        if len(steps) > RAW_POINTS:
            axes.plot(steps, values, ".", color=colour, alpha=0.2, markersize=3, markeredgewidth=0, rasterized=True)
            axes.plot(steps, smoothed(values), color=colour, linewidth=1.4, label=label)
        else:
            axes.plot(steps, values, "o-", color=colour, markersize=3, linewidth=1.2, label=label)
        if name == BOUNDED and run["max_staleness"] is not None:
            axes.axhline(run["max_staleness"], color="firebrick", linestyle="--", linewidth=1, label="bound")
    if panel.is_logarithmic and _spans_decades(curves):
        axes.set_yscale("log")
    axes.set_title(panel.title, loc="left", fontsize="small")
    axes.tick_params(labelsize="x-small")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.grid(alpha=0.3)
    axes.set_xlabel("step", fontsize="x-small", labelpad=1)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(
            loc="lower right", bbox_to_anchor=(1.02, 0.97), ncols=3, frameon=False, fontsize="x-small",
            handlelength=1, columnspacing=0.8, handletextpad=0.4,
        )  # fmt: skip


def _spans_decades(curves: dict[str, Values]) -> bool:
    import numpy as np

    values = np.concatenate(list(curves.values()))
    positive = values[values > 0]
    return bool(len(positive) and positive.max() / positive.min() > _LOGARITHMIC_FROM)
