"""The curves of a run as small multiples: a panel a subject, readable with a few points and with thousands."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from services.local.report.curves import BOUNDED, panels, smoothed, window
from services.local.report.runs import heading, remark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

    from services.local.report.curves import Panel, Values

COLUMNS = 4
# In inches: a row of panels with the space above and below it, the heading's and a remark's lines.
_ROW_IN, _HEADING_IN, _LINE_IN = 2.0, 0.45, 0.17
_BELOW_IN, _BETWEEN_ROWS = 0.4, 0.42
_SIDES = {"left": 0.04, "right": 0.99, "wspace": 0.22}
_REMARK_CHARACTERS, _REMARK_LINES = 190, 4
_LOGARITHMIC_FROM = 10.0


def height_in(run: dict[str, Any]) -> float:
    """What `draw_run` needs, in inches."""
    rows = -(-len(panels(run)) // COLUMNS)
    return _top_in(run) + (rows * _ROW_IN + _BELOW_IN if rows else _LINE_IN)


def draw_run(figure: FigureBase, run: dict[str, Any]) -> None:
    """A heading, why the run failed if it did, and a panel of each subject that has points; on `height_in` inches."""
    height, left = height_in(run), _SIDES["left"]
    # What a trainer says may have a $ in it, which is no formula here.
    figure.text(left, 1 - 0.2 / height, heading(run), va="center", weight="bold", fontsize="large", parse_math=False)
    colour = "firebrick" if run["failure"] else "dimgrey"
    said = "\n".join(_remark_lines(run))
    figure.text(left, 1 - _HEADING_IN / height, said, va="top", color=colour, fontsize="small", parse_math=False)
    shown = panels(run)
    if not shown:
        return
    mean_of = window(len(run["steps_logged"]))
    if mean_of > 1:
        legend = f"dots: logged points; lines: moving means of {mean_of}"
        figure.text(
            _SIDES["right"], 1 - 0.2 / height, legend, va="center", ha="right", color="dimgrey", fontsize="small"
        )
    rows = -(-len(shown) // COLUMNS)
    top, bottom = 1 - (_top_in(run) + _BETWEEN_ROWS) / height, _BELOW_IN / height
    grid = figure.add_gridspec(rows, COLUMNS, top=top, bottom=bottom, hspace=_BETWEEN_ROWS, **_SIDES)
    for number, (panel, curves) in enumerate(shown):
        _draw_panel(figure.add_subplot(grid[divmod(number, COLUMNS)]), run, panel, curves)


def _top_in(run: dict[str, Any]) -> float:
    return _HEADING_IN + len(_remark_lines(run)) * _LINE_IN


def _remark_lines(run: dict[str, Any]) -> list[str]:
    return textwrap.wrap(remark(run), _REMARK_CHARACTERS, max_lines=_REMARK_LINES, placeholder=" …")


def _draw_panel(axes: Axes, run: dict[str, Any], panel: Panel, curves: dict[str, Values]) -> None:
    for number, (name, values) in enumerate(curves.items()):
        _draw_curve(axes, run["steps_logged"], values, f"C{number}", panel.labels[name])
        if name == BOUNDED and run["max_staleness"] is not None:
            axes.axhline(run["max_staleness"], color="firebrick", linestyle="--", linewidth=1, label="bound")
    axes.set_title(panel.title, loc="left", fontsize="small")
    if panel.is_logarithmic and _spans_decades(curves):
        axes.set_yscale("log")
    _set_scales(axes, run["steps_logged"])
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(
            loc="lower right", bbox_to_anchor=(1.02, 0.97), ncols=3, frameon=False, fontsize="x-small",
            handlelength=1, columnspacing=0.8, handletextpad=0.4,
        )  # fmt: skip


def _draw_curve(axes: Axes, steps: list[int], values: Values, colour: str, label: str) -> None:
    if window(len(steps)) > 1:
        axes.plot(steps, values, ".", color=colour, alpha=0.3, markersize=3, markeredgewidth=0, rasterized=True)
        axes.plot(steps, smoothed(values), color=colour, linewidth=1.4, label=label)
    else:
        axes.plot(steps, values, "o-", color=colour, markersize=3, linewidth=1.2, label=label)


def _set_scales(axes: Axes, steps: list[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    margin = max(0.5, 0.03 * (steps[-1] - steps[0]))
    axes.set_xlim(steps[0] - margin, steps[-1] + margin)
    axes.set_xlabel("step", fontsize="x-small", labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_tick)
    axes.tick_params(labelsize="x-small")
    axes.grid(alpha=0.3)


def _tick(value: float, _position: float) -> str:
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.7g}"


def _spans_decades(curves: dict[str, Values]) -> bool:
    import numpy as np

    values = np.concatenate(list(curves.values()))
    positive = values[values > 0]
    return bool(len(positive) and positive.max() / positive.min() > _LOGARITHMIC_FROM)
