"""Beta intervals: against mpmath, known values, and what must hold for every count."""

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pool.posterior import beta_cdf, beta_quantile, deviation, interval, mean

COUNTS = st.integers(1, 256).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


@given(st.floats(0, 1), st.floats(0.5, 300), st.floats(0.5, 300))
def test_the_distribution_is_mpmaths(x: float, a: float, b: float):
    assert beta_cdf(x, a, b) == pytest.approx(float(mpmath.betainc(a, b, 0, x, regularized=True)), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "correct", "low", "high"),
    [(8, 0, 0.0, 0.26222), (8, 4, 0.19897, 0.80103), (10, 1, 0.01101, 0.38131), (20, 20, 0.88336, 1.0)],
)
def test_known_intervals(n: int, correct: int, low: float, high: float):
    found = interval(n, correct)
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-5)


@given(COUNTS)
def test_an_interval_holds_the_rate_and_its_mirror_is_the_mirror_of_it(counts: tuple[int, int]):
    n, correct = counts
    found, mirrored = interval(n, correct), interval(n, n - correct)
    assert 0 <= found.low <= correct / n <= found.high <= 1
    assert found.low < mean(n, correct) < found.high
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-9)


@given(COUNTS)
def test_one_more_right_answer_moves_the_interval_up_and_more_of_the_same_narrows_it(counts: tuple[int, int]):
    n, correct = counts
    found = interval(n, correct)
    if correct < n:
        better = interval(n, correct + 1)
        assert better.low > found.low
        assert better.high > found.high or better.high == found.high == 1
    longer = interval(4 * n, 4 * correct)
    assert longer.high - longer.low < found.high - found.low
    assert deviation(4 * n, 4 * correct) < deviation(n, correct) < deviation(0, 0)


@given(st.floats(0.001, 0.999), st.floats(0.5, 100), st.floats(0.5, 100))
def test_a_quantile_is_the_inverse(probability: float, a: float, b: float):
    assert beta_cdf(beta_quantile(probability, a, b), a, b) == pytest.approx(probability, abs=1e-6)


def test_nothing_measured_says_nothing_and_impossible_counts_are_an_error():
    assert (interval(0, 0).low, interval(0, 0).high) == (0.0, 1.0)
    for n, correct in ((1, 2), (3, -1)):
        with pytest.raises(ValueError, match="right ones"):
            interval(n, correct)


def test_many_responses_converge():
    found = interval(1_000_000, 250_000)
    assert (found.low, found.high) == pytest.approx((0.249152, 0.250849), abs=2e-6)
