"""What a measured pass rate says about the true one: a Beta posterior under Jeffreys' prior. Pure functions, no dependency.

The posterior is Beta(correct + 1/2, n - correct + 1/2). Jeffreys' prior, because its equal-tailed intervals keep their 95 %
for the few responses of a probe; the uniform prior pulls a question that nearly always fails, or never does, too far to the
middle. Where nothing (or everything) was right the interval is closed at 0 (or 1). (Brown, Cai and DasGupta 2001, Interval
Estimation for a Binomial Proportion, Statistical Science 16:2, sections 3.1.2 and 4.1.1.)
"""

import math
from dataclasses import dataclass
from functools import lru_cache

PRIOR = 0.5
TAIL = 0.025
_HALVINGS = 60  # of [0, 1]: to the last bit of a float
_TERMS = 100_000
_TINY = 1e-300
_EPSILON = 1e-15


@dataclass(frozen=True, slots=True)
class Interval:
    """The equal-tailed 95 % interval of a pass rate, within [0, 1]."""

    low: float
    high: float


@lru_cache(maxsize=4096)
def interval(n: int, correct: int) -> Interval:
    """Of `correct` right ones of `n` scored responses; [0, 1] without any. Raises: ValueError for impossible counts."""
    a, b = _parameters(n, correct)
    low = 0.0 if correct == 0 else beta_quantile(TAIL, a, b)
    high = 1.0 if correct == n else beta_quantile(1.0 - TAIL, a, b)
    return Interval(low, high)


def mean(n: int, correct: int) -> float:
    """The posterior's mean: the share of right ones, pulled to 1/2 by one response."""
    a, b = _parameters(n, correct)
    return a / (a + b)


def deviation(n: int, correct: int) -> float:
    """The posterior's standard deviation, at most that of the prior: 0.354."""
    a, b = _parameters(n, correct)
    return math.sqrt(a * b / (a + b + 1.0)) / (a + b)


def _parameters(n: int, correct: int) -> tuple[float, float]:
    if not 0 <= correct <= n:
        raise ValueError(f"cannot have {correct} right ones of {n} scored responses")
    return correct + PRIOR, n - correct + PRIOR


def beta_quantile(probability: float, a: float, b: float) -> float:
    """The x in [0, 1] with I_x(a, b) = probability, by bisection: I_x rises in x."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if beta_cdf(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b) for a, b > 0 and x in [0, 1] (DLMF 8.17.22, and 8.17.4)."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1.0) / (a + b + 2.0):  # where the fraction converges slowly, the other tail's is used
        return 1.0 - beta_cdf(1.0 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _continued_fraction(x, a, b) / a


def _continued_fraction(x: float, a: float, b: float) -> float:
    """1/(1 + d1/(1 + d2/(1 + …))) by Lentz's method as modified by Thompson and Barnett (1986)."""
    c, d = 1.0, 1.0 / _nonzero(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _nonzero(1.0 + term * d)
            c = _nonzero(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < _EPSILON:
            return value
    raise ArithmeticError(f"I_{x}({a}, {b}) does not converge in {_TERMS} terms")


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
