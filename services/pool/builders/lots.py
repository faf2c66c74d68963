"""Seeded choice among more than memory holds: every candidate draws a lot, and the lowest lots are chosen.

A question draws from a generator of its own, so one more question in the pool changes nothing about the rows of the others.
"""

from random import Random

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Lots = NDArray[np.uint64]
_STEP, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = (1 << 64) - 1


def generator_of(seed: int, question_id: str) -> Random:
    """Where every random choice about one question comes from."""
    return Random(f"{seed}:{question_id}")


def draw(rng: Random) -> int:
    """A lot: 64 random bits."""
    return rng.getrandbits(64)


def redrawn(lots: Lots, choice: int) -> Lots:
    """Other lots of the same candidates, for a further choice that the first must not colour (the mixer of SplitMix64)."""
    mixed = lots + np.uint64(choice * _STEP & _WORD)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_MIX_1)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_MIX_2)
    return mixed ^ (mixed >> np.uint64(31))


def numbered(count: int, seed: int) -> Lots:
    """Lots of candidates that are known by their number only."""
    return redrawn(np.arange(count, dtype=np.uint64) + np.uint64(draw(Random(seed))), 1)


def lowest(among: Mask, lots: Lots, count: int) -> Mask:
    """Those `count` of the candidates `among` with the lowest lots; all of them when there are not more."""
    chosen = np.zeros_like(among)
    candidates = np.flatnonzero(among)
    chosen[candidates[np.argsort(lots[candidates], kind="stable")[:count]]] = True
    return chosen
