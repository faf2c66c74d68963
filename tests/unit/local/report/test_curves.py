"""Curves: which there are, and how they are made readable."""

import numpy as np
import pytest

from services.local.report.curves import bars, panels, smoothed, window
from services.local.report.runs import run_json
from tests.unit.local import samples


def test_only_what_was_logged_has_a_panel_in_its_unit():
    points = samples.points(2, clip_fraction=lambda step: step / 10, wait_s=lambda step: None if step == 1 else 4.0)
    shown = panels(run_json(samples.run("rl"), points))
    assert [panel.title for panel, _ in shown] == ["loss", "clipped actions, %", "wait for the batch, s"]
    assert shown[1][1]["clip_fraction"].tolist() == [10.0, 20.0]
    assert np.array_equal(shown[2][1]["wait_s"], [np.nan, 4.0], equal_nan=True)


@pytest.mark.parametrize(("points", "mean_of"), [(1, 1), (8, 1), (60, 1), (61, 2), (2000, 66)])
def test_long_curves_are_smoothed(points: int, mean_of: int):
    assert window(points) == mean_of
    line = np.arange(points, dtype=float)
    middle = slice(mean_of, points - mean_of)
    assert np.allclose(smoothed(line)[middle], line[middle], atol=0.51), "a mean around each point moves no line"


def test_what_is_missing_is_no_zero_in_the_mean():
    values = np.full(300, 5.0)
    values[40:100:2] = np.nan
    assert np.allclose(smoothed(values), 5.0)
    values[100:200] = np.nan
    assert np.isnan(smoothed(values)[150])


@pytest.mark.parametrize(
    ("values", "shown"),
    [([1.0, 2.0, 3.0], "▁▅█"), ([7.0, 7.0], "▁▁"), ([1.0, np.nan, 2.0], "▁ █"), ([1, 1, 3, 3, 2, 2], "▁█▅")],
)
def test_a_curve_in_words_of_bars(values: list[float], shown: str):
    assert bars(np.array(values, dtype=float), 3) == shown
