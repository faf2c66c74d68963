"""S²R's metrics over scored responses: pure functions; definitions in `shared.contracts.metrics`.

Invariant: an unscored response is counted as such and is in no rate. Limit: intervals take responses as independent,
which several responses to one question are not quite.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from shared.contracts.metrics import Estimate, TrajectoryMetrics
from shared.contracts.verdicts import ClaimedVerdict, ScoredSegment, SegmentKind, VerdictOutcome

Z_95 = 1.959963984540054
NOTHING = Estimate(value=None, low=None, high=None, n=0)


@dataclass(frozen=True, slots=True)
class ScoredResponse:
    """What the metrics need of one response; `tokens` is 0 where the policy has none."""

    outcome: VerdictOutcome
    segments: tuple[ScoredSegment, ...]
    unparsed: bool
    tokens: int


def wilson(hits: int, n: int) -> Estimate:
    """A rate with Wilson's 95 % score interval (Wilson 1927); `value` None when n is 0."""
    if n == 0:
        return NOTHING
    rate = hits / n
    scale = 1 + Z_95**2 / n
    centre = (rate + Z_95**2 / (2 * n)) / scale
    half = Z_95 * math.sqrt(rate * (1 - rate) / n + Z_95**2 / (4 * n * n)) / scale
    # The interval always holds the rate: at 0 and 1 rounding could put it a bit aside.
    return Estimate(value=rate, low=max(0.0, min(rate, centre - half)), high=min(1.0, max(rate, centre + half)), n=n)


def mean_of(values: Sequence[float]) -> Estimate:
    """A mean with its normal 95 % interval; a single value has no width."""
    n = len(values)
    if n == 0:
        return NOTHING
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1) if n > 1 else 0.0
    half = Z_95 * math.sqrt(variance / n)
    return Estimate(value=mean, low=mean - half, high=mean + half, n=n)


def rate_of(hits: Iterable[bool]) -> Estimate:
    """The share of true values."""
    values = list(hits)
    return wilson(sum(values), len(values))


def trajectory_metrics(responses: Sequence[ScoredResponse]) -> TrajectoryMetrics:
    """All metrics over one set of responses."""
    scored = [response for response in responses if response.outcome is not VerdictOutcome.UNSCORED]
    checks = [check for response in scored for check in _checks(response.segments)]
    turns = [(first, last) for first, last in map(_first_and_last, scored) if first is not None]
    return TrajectoryMetrics(
        n=len(scored),
        unscored=len(responses) - len(scored),
        final_accuracy=rate_of(response.outcome is VerdictOutcome.CORRECT for response in scored),
        first_accuracy=rate_of(first for first, _ in turns),
        verification_accuracy=rate_of(_is_true(right, claimed) for right, claimed in checks),
        error_recall=rate_of(claimed is ClaimedVerdict.INCORRECT for right, claimed in checks if not right),
        correct_precision=rate_of(right for right, claimed in checks if claimed is ClaimedVerdict.CORRECT),
        wrong_to_right=rate_of(not first and last for first, last in turns),
        right_to_wrong=rate_of(first and not last for first, last in turns),
        mean_rounds=mean_of([float(_rounds(response)) for response in scored]),
        mean_tokens=mean_of([float(response.tokens) for response in scored if response.tokens]),
        unparsed_rate=rate_of(response.unparsed for response in scored),
    )


def _rounds(response: ScoredResponse) -> int:
    return sum(segment.kind is SegmentKind.SOLVE for segment in response.segments)


def _first_and_last(response: ScoredResponse) -> tuple[bool | None, bool]:
    """Whether the first and the last answer are right; first None when it could not be judged, wrong when there is none."""
    last = response.outcome is VerdictOutcome.CORRECT
    solves = [segment for segment in response.segments if segment.kind is SegmentKind.SOLVE]
    if not solves:
        return False, last
    if len(solves) == 1:
        return last, last
    return (None if solves[0].reward is None else solves[0].reward > 0), last


def _checks(segments: Sequence[ScoredSegment]) -> list[tuple[bool, ClaimedVerdict]]:
    """(attempt is right, verdict about it) of every judged attempt that is followed by a verification with a verdict."""
    return [
        (attempt.reward > 0, check.claimed)
        for attempt, check in pairwise(segments)
        if attempt.kind is SegmentKind.SOLVE
        and attempt.reward is not None
        and check.kind is SegmentKind.VERIFY
        and check.claimed is not None
    ]


def _is_true(right: bool, claimed: ClaimedVerdict) -> bool:
    return claimed is (ClaimedVerdict.CORRECT if right else ClaimedVerdict.INCORRECT)
