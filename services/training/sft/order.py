"""The order in which rows are trained on: seeded, known in advance for the whole run, batches of similar length.

A resumed run takes the same order and skips what it did, so it needs no state of a random generator.
"""

from collections.abc import Sequence

import numpy as np

WINDOW_BATCHES = 16


def batch_order(lengths: Sequence[int], batch_size: int, steps: int, seed: int) -> list[int]:
    """Row numbers for `steps` batches of `batch_size`, one batch after another.

    Every row is used once before any is used again. Within a window of WINDOW_BATCHES batches rows are sorted by
    length, so that a batch needs little padding; the batches of a window come in random order.
    """
    generator = np.random.default_rng(seed)
    needed = batch_size * steps
    rows: list[int] = []
    while len(rows) < needed:
        rows.extend(generator.permutation(len(lengths)).tolist())
    rows = rows[:needed]
    order: list[int] = []
    window = batch_size * WINDOW_BATCHES
    for start in range(0, needed, window):
        by_length = sorted(rows[start : start + window], key=lambda row: -lengths[row])
        batches = [by_length[first : first + batch_size] for first in range(0, len(by_length), batch_size)]
        for number in generator.permutation(len(batches)).tolist():
            order.extend(batches[number])
    return order


def micro_batch_size(batch_size: int, asked: int) -> int:
    """The largest divisor of `batch_size`, a process's rows of a step, that is not above `asked`; 0 asks for all of them."""
    if asked == 0 or asked >= batch_size:
        return batch_size
    return next(size for size in range(asked, 0, -1) if batch_size % size == 0)
