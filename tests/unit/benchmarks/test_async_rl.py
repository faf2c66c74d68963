"""What the benchmark of asynchronous RL makes of a run's logged points."""

from datetime import UTC, datetime, timedelta

import pytest

from benchmarks.async_rl import slowest_of, timed
from shared.contracts.runs import RunMetric


def test_the_clock_begins_with_the_end_of_the_first_step() -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    points = [
        RunMetric(
            step=step,
            at=start + timedelta(seconds=10 * step),
            values={"wait_s": 4.0, "staleness_mean": 1.0, "dropped_stale": 0.5} if step else {"rows": 3.0},
        )
        for step in range(4)
    ]
    found = timed(points)
    assert (found.seconds, found.step_s, found.staleness, found.dropped) == (20.0, 6.0, [1.0, 1.0], 1.0)


def test_the_slowest_of_many_answers_takes_several_medians() -> None:
    assert slowest_of(1, 0.0) == 1.0
    # The mean of the largest of 64 standard normal values is 2.39 (Tippett 1925); exp is convex.
    assert slowest_of(64, 0.1) == pytest.approx(1.27, abs=0.02)
