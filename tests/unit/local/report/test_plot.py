"""The plot: read back from the figure that was drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from services.local.errors import LocalError
from services.local.report.plot import MAX_RUNS_A_PICTURE, plot
from services.local.report.plot_runs import draw_run
from services.local.report.runs import run_json
from shared.contracts.runs import RunFailure, RunState
from tests.unit.local import samples

FLOW = {"staleness_mean": lambda step: 0.5, "staleness_max": lambda step: step % 2}


def drawn(run: dict[str, Any]) -> Figure:
    figure = Figure()
    draw_run(figure, run)
    return figure


def test_the_campaign_and_its_runs_are_one_picture(tmp_path: Path):
    assert plot(samples.content(), tmp_path / "report.png") == 1
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_a_pdf_has_a_page_of_each_run_and_a_picture_the_newest(tmp_path: Path):
    run = run_json(samples.run("sft", state=RunState.QUEUED), [])
    report = {"runs": [run | {"key": f"run-{number}"} for number in range(MAX_RUNS_A_PICTURE + 2)]}
    assert plot(report, tmp_path / "runs.pdf") == MAX_RUNS_A_PICTURE + 2
    assert (tmp_path / "runs.pdf").read_bytes().count(b"/Type /Page ") == MAX_RUNS_A_PICTURE + 2
    assert plot(report, tmp_path / "runs.svg") == MAX_RUNS_A_PICTURE


def test_staleness_is_drawn_with_its_bound():
    axes = drawn(run_json(samples.run("rl"), samples.points(3, **FLOW))).axes
    assert [one.get_title(loc="left") for one in axes] == ["loss", "staleness, versions"]
    lines = {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in axes[1].get_lines()}
    assert lines.keys() == {"mean", "largest", "bound"}
    assert set(lines["bound"]) == {2}


def test_a_long_curve_is_a_line_over_every_point():
    (axes,) = drawn(run_json(samples.run("sft"), samples.points(300))).axes
    dots, line = axes.get_lines()
    assert len(dots.get_ydata()) == 300  # type: ignore[arg-type]
    assert dots.get_alpha() == 0.3
    assert (dots.get_linestyle(), line.get_linestyle()) == ("None", "-")


@pytest.mark.parametrize("steps", [0, 1, 300])
def test_a_run_that_failed_half_way_is_drawn_with_its_reason(tmp_path: Path, steps: int):
    wild = {
        "ratio_max": lambda step: 1e30**step if step < 3 else None,
        "ratio_mean": lambda _: None,
        "kl": lambda _: 1e-9,
    }
    reason = "The gradient of step 3 is nan [/tmp/a] at $5 and $x_{. " * 40
    failed = samples.run("rl", state=RunState.FAILED, failure=RunFailure.NOT_A_NUMBER, message=reason)
    run = run_json(failed, samples.points(steps, **FLOW, **wild))
    said = [text.get_text() for text in drawn(run).texts]
    assert any(words.startswith("not_a_number: The gradient of step 3 is nan") for words in said)
    plot({"runs": [run]}, tmp_path / "failed.png")


@pytest.mark.parametrize(
    ("name", "sentence"), [("report.doc", "must end with one of"), ("no/report.png", "No such file")]
)
def test_a_plot_that_cannot_be_written_is_one_sentence(tmp_path: Path, name: str, sentence: str):
    with pytest.raises(LocalError, match=sentence):
        plot({"runs": []} | samples.content(), tmp_path / name)
