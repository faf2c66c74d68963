"""Policies pooled over seeds."""

from typing import Any

import pytest

from benchmarks.policies import COLUMNS, difference_interval, pooled


def row(n: int, **columns: float | None) -> dict[str, Any]:
    return {"n": n} | dict.fromkeys(COLUMNS) | columns


def test_pooling_weighs_by_n_and_refuses_a_seed_without_an_accuracy():
    known = row(100, final_accuracy=0.5)
    both = pooled([known, row(300, final_accuracy=0.7, error_recall=0.25)])
    assert (both["n"], both["final_accuracy"], both["error_recall"]) == (400, pytest.approx(0.65), 0.25)
    for rows in ([known, row(0)], []):
        with pytest.raises(ValueError, match="no final accuracy"):
            pooled(rows)


def test_the_interval_is_that_of_two_independent_proportions():
    half = row(100, final_accuracy=0.5)
    assert difference_interval(half, half) == pytest.approx(1.96 * (0.25 / 100 * 2) ** 0.5)
