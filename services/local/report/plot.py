"""The report as a picture (PNG, SVG), with the runs below each other, or as a PDF with a page a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.local.errors import LocalError
from services.local.report.plot_policies import HEIGHT_IN, draw_policies
from services.local.report.plot_runs import draw_run, height_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure, FigureBase

    # Its height in inches, and what draws it.
    Part = tuple[float, Callable[[FigureBase], None]]

WIDTH_IN, DOTS_PER_INCH = 16.0, 130
# A picture of more would be too tall to look at; a PDF has them all.
MAX_RUNS_A_PICTURE = 12


def plot(report: dict[str, Any], path: Path) -> int:
    """Draw the report into a PNG, SVG or PDF file; returns how many runs are in it. Raises: LocalError when it cannot be written."""
    is_paged = path.suffix.lower() == ".pdf"
    runs = report["runs"] if is_paged else report["runs"][-MAX_RUNS_A_PICTURE:]
    parts = _parts(report, runs)
    try:
        if is_paged:
            _write_pages(parts, path)
        else:
            _write(_figure(parts), path)
    except OSError as error:
        raise LocalError(f"The plot {path} cannot be written: {error}.") from error
    return len(runs)


def _write(figure: Figure, path: Path) -> None:
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in ("", *formats):
        raise LocalError(
            f"The plot {path} cannot be written: its name must end with one of .{', .'.join(sorted(formats))}."
        )
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _write_pages(parts: list[Part], path: Path) -> None:
    from matplotlib.backends.backend_pdf import PdfPages

    with PdfPages(path) as pages:
        for part in parts:
            pages.savefig(_figure([part]))


def _parts(report: dict[str, Any], runs: list[dict[str, Any]]) -> list[Part]:
    policies: list[Part] = [(HEIGHT_IN, lambda figure: draw_policies(figure, report))] if "campaign" in report else []
    return [*policies, *((height_in(run), lambda figure, run=run: draw_run(figure, run)) for run in runs)]


def _figure(parts: list[Part]) -> Figure:
    from matplotlib.figure import Figure

    heights = [height for height, _ in parts]
    figure = Figure(figsize=(WIDTH_IN, sum(heights)))
    for (_, draw), band in zip(
        parts, figure.subfigures(len(parts), 1, height_ratios=heights, squeeze=False)[:, 0], strict=True
    ):
        draw(band)
    return figure
