"""The metrics, on responses whose rates can be counted by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pool.metrics import ScoredResponse, mean_of, trajectory_metrics, wilson
from shared.contracts.verdicts import ClaimedVerdict, ScoredSegment, SegmentKind, VerdictOutcome

RIGHT, WRONG = 1.0, -1.0
CLAIMS = {"c": ClaimedVerdict.CORRECT, "i": ClaimedVerdict.INCORRECT, "u": ClaimedVerdict.UNVERIFIABLE, "-": None}


def solve(reward: float | None) -> ScoredSegment:
    return ScoredSegment(kind=SegmentKind.SOLVE, start=0, end=0, answer="1", reward=reward)


def respond(turns: str, *, tokens: int = 10, unparsed: bool = False, unscored: bool = False) -> ScoredResponse:
    """`turns`: r or w for an attempt, then c, i, u, - for its verification; `.` for none."""
    segments: list[ScoredSegment] = []
    for attempt, check in zip(turns[::2], turns[1::2], strict=True):
        segments.append(solve({"r": RIGHT, "w": WRONG, "?": None}[attempt]))
        if check != ".":
            segments.append(ScoredSegment(kind=SegmentKind.VERIFY, start=0, end=0, claimed=CLAIMS[check]))
    outcome = VerdictOutcome.CORRECT if turns and turns[-2] == "r" else VerdictOutcome.INCORRECT
    outcome = VerdictOutcome.UNSCORED if unscored else outcome
    return ScoredResponse(outcome, tuple(segments), unparsed, tokens)


def test_every_metric_counts_what_it_says():
    metrics = trajectory_metrics(
        [
            respond("rc"),  # right at once
            respond("wirc"),  # found and mended
            respond("riwc"),  # a right answer thrown away, the wrong one accepted
            respond("wc"),  # a wrong answer accepted
            respond("wu"),  # cannot be verified: not recalled
            respond("r.", unparsed=True, tokens=0),  # no verification at all
            respond("", unparsed=True),  # an empty answer is a wrong one
            respond("rc", unscored=True, tokens=99),  # in no rate
        ]
    )
    found = {name: (getattr(metrics, name).value, getattr(metrics, name).n) for name in type(metrics).model_fields
             if name not in ("n", "unscored")}  # fmt: skip
    assert (metrics.n, metrics.unscored) == (7, 1)
    assert found == {
        "final_accuracy": (3 / 7, 7),
        "first_accuracy": (3 / 7, 7),
        "verification_accuracy": (3 / 7, 7),  # rc, wi, rc right; ri, wc, wc, wu not
        "error_recall": (1 / 4, 4),
        "correct_precision": (2 / 4, 4),
        "wrong_to_right": (1 / 7, 7),
        "right_to_wrong": (1 / 7, 7),
        "mean_rounds": (8 / 7, 7),
        "mean_tokens": (10.0, 6),
        "unparsed_rate": (2 / 7, 7),
    }


def test_a_first_attempt_that_was_not_judged_is_in_no_rate_about_it():
    metrics = trajectory_metrics([respond("?irc"), respond("rc")])
    assert (metrics.final_accuracy.n, metrics.first_accuracy.n, metrics.wrong_to_right.n) == (2, 1, 1)
    assert (metrics.verification_accuracy.n, metrics.error_recall.n) == (2, 0)


def test_nothing_counted_is_null():
    metrics = trajectory_metrics([respond("rc", unscored=True)])
    assert (metrics.n, metrics.unscored) == (0, 1)
    assert metrics.final_accuracy.model_dump() == {"value": None, "low": None, "high": None, "n": 0}
    assert metrics.mean_tokens.value is None


def test_wilson_against_published_values():
    # Newcombe (1998), table I, method 3 (score): 81/263 and 15/148.
    for hits, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        estimate = wilson(hits, n)
        assert estimate.low == pytest.approx(low, abs=1e-4)
        assert estimate.high == pytest.approx(high, abs=1e-4)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_rate_lies_in_its_interval_and_mirrors(counted: tuple[int, int]):
    hits, n = counted
    estimate, mirrored = wilson(hits, n), wilson(n - hits, n)
    assert estimate.value is not None
    assert estimate.low is not None
    assert estimate.high is not None
    assert mirrored.high is not None
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert math.isclose(estimate.low, 1 - mirrored.high, abs_tol=1e-9)


def test_a_mean_has_a_normal_interval():
    estimate = mean_of([1.0, 2.0, 3.0])
    half = 1.959963984540054 / math.sqrt(3)
    assert estimate.value == 2.0
    assert estimate.low == pytest.approx(2 - half)
    assert estimate.high == pytest.approx(2 + half)
    assert mean_of([5.0]).low == mean_of([5.0]).high == 5.0
