"""Which questions to probe again: pure functions of what was measured, by which version, and where the router cuts.

score = posterior deviation x staleness x (1 + nearness): a question is worth asking when little is known of it, when the policy
has moved on since, and when a little more could put it into another pool. Equal questions have equal scores, so a pool of
any size is ranked by the few (n, correct, version) there are.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from services.pool import posterior
from shared.contracts.recipe import RouterRecipe


@dataclass(frozen=True, slots=True)
class Measured:
    """What the newest probe found: `correct` of `n` scored responses of policy version `version`; None before any probe."""

    n: int
    correct: int
    version: int | None


def staleness(measured: Measured, policy_version: int) -> int:
    """Versions between the measurement and now; what was never measured is one staler than the first version."""
    return policy_version + 1 if measured.version is None else max(0, policy_version - measured.version)


def nearness(measured: Measured, router: RouterRecipe) -> float:
    """In [0, 1]: how near the posterior's mean is to the nearest cut between pools, in its own deviations (a Gaussian's height)."""
    mean, deviation = posterior.mean(measured.n, measured.correct), posterior.deviation(measured.n, measured.correct)
    cuts = (router.noise_below, router.certain_from, router.trivial_from)
    return math.exp(-0.5 * min(abs(mean - cut) / deviation for cut in cuts) ** 2)


def score(measured: Measured, policy_version: int, router: RouterRecipe) -> float:
    """How much a probe by `policy_version` is worth; 0 for what that version has measured already."""
    known_by = posterior.deviation(measured.n, measured.correct)
    return known_by * staleness(measured, policy_version) * (1.0 + nearness(measured, router))


def ranked(
    kinds: Iterable[Measured], policy_version: int, minimum_staleness: int, router: RouterRecipe
) -> list[tuple[Measured, float]]:
    """Those at least `minimum_staleness` versions stale with their scores, the best first."""
    due = [one for one in kinds if staleness(one, policy_version) >= minimum_staleness]
    scored = [(one, score(one, policy_version, router)) for one in due]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0].n, pair[0].correct, pair[0].version or 0))
