"""The order in which rows are trained on: seeded, known in advance for the whole run, batches of similar length.

A resumed run takes the same order and skips what it did, so it needs no state of a random generator.
"""

from collections.abc import Iterator, Sequence

import numpy as np

WINDOW_BATCHES = 16


def batch_order(lengths: Sequence[int], batch_size: int, steps: int, seed: int) -> list[int]:
    """Row numbers for `steps` batches of `batch_size`, one batch after another.

    Every row is used once before any is used again, and no batch has a row twice (unless there are fewer rows than a batch takes).
    Within a window of WINDOW_BATCHES batches of one epoch rows are sorted by length, so that a batch needs little padding; the
    batches of a window come in random order. Only the batch that ends one epoch and begins the next is not sorted.
    """
    generator = np.random.default_rng(seed)
    order: list[int] = []
    begun: list[int] = []
    while len(order) < batch_size * steps:
        epoch: list[int] = generator.permutation(len(lengths)).tolist()
        if begun:
            begun, epoch = _fill(begun, epoch, batch_size)
        if len(begun) == batch_size:
            order.extend(begun)
            begun = []
        whole = len(epoch) - len(epoch) % batch_size
        for start in range(0, whole, batch_size * WINDOW_BATCHES):
            window = epoch[start : min(start + batch_size * WINDOW_BATCHES, whole)]
            order.extend(_by_length(window, lengths, batch_size, generator))
        begun += epoch[whole:]
    return order[: batch_size * steps]


def _fill(begun: list[int], epoch: list[int], batch_size: int) -> tuple[list[int], list[int]]:
    """A batch that the epoch before has begun, filled with rows that it has not, and the rows of this epoch that are left."""
    there = set(begun)
    taken = sorted(epoch, key=there.__contains__)[: batch_size - len(begun)]
    gone = set(taken)
    return begun + taken, [row for row in epoch if row not in gone]


def _by_length(
    window: list[int], lengths: Sequence[int], batch_size: int, generator: np.random.Generator
) -> Iterator[int]:
    """The rows of a window in batches of like length, the batches in random order."""
    by_length = sorted(window, key=lambda row: -lengths[row])
    for number in generator.permutation(len(window) // batch_size).tolist():
        yield from by_length[number * batch_size : (number + 1) * batch_size]


def micro_batch_size(batch_size: int, asked: int) -> int:
    """The largest divisor of `batch_size`, a process's rows of a step, that is not above `asked`; 0 asks for all of them."""
    if asked == 0 or asked >= batch_size:
        return batch_size
    return next(size for size in range(asked, 0, -1) if batch_size % size == 0)
