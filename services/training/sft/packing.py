"""Packing: several trajectories share a row of a micro-batch, so that little of it is padding.

Invariant: no trajectory sees another one. Positions begin again at 0 with each, which transformers' masks for sdpa and eager
attention (`masking_utils`) read as a boundary where no attention mask is given; its first label is ignored, so that nothing
predicts it. The loss of a step is that of the same step unpacked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from services.training.sft.rows import IGNORED


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Row numbers by pack, none above `capacity` tokens: first-fit decreasing. Raises ValueError when a row is longer."""
    packs: list[list[int]] = []
    free: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if lengths[row] > capacity:
            raise ValueError(f"row {row} has {lengths[row]} tokens, more than a pack of {capacity}")
        number = next((number for number, left in enumerate(free) if left >= lengths[row]), len(packs))
        if number == len(packs):
            packs.append([])
            free.append(capacity)
        packs[number].append(row)
        free[number] -= lengths[row]
    return packs


def cheapest_packs(lengths: Sequence[int], capacity: int, hidden_size: int) -> list[list[int]]:
    """Packs as wide as whole multiples of the longest row, or as `capacity`: those that take the least arithmetic, then the narrowest.

    Wider packs have less padding, but every token attends over the width of its pack, masked or not. Attention over 6 * hidden_size
    tokens costs what a layer's matrices do: 24 h^2 operations a token beside 4 T h (Kaplan et al. 2020, table 1). Raises ValueError
    when a row is longer than `capacity`.
    """

    def cost(packs: list[list[int]]) -> float:
        width = max(sum(lengths[row] for row in rows) for rows in packs)
        return len(packs) * width * (1.0 + width / (6 * hidden_size))

    longest, capacity = max(lengths), min(capacity, sum(lengths))
    return min((pack(lengths, width) for width in (*range(longest, capacity, longest), capacity)), key=cost)


@dataclass(frozen=True)
class PackingCollator:
    """A micro-batch of trajectories as packs of up to `capacity` tokens."""

    pad_token_id: int
    capacity: int
    hidden_size: int

    def __call__(self, examples: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Tensor]:
        """`input_ids`, `labels`, `position_ids` of (packs, T); `tokens` (packs): how many of a pack are no padding."""
        lengths = [len(example["input_ids"]) for example in examples]
        packs = cheapest_packs(lengths, self.capacity, self.hidden_size)
        tokens = [sum(lengths[row] for row in rows) for rows in packs]
        width = max(tokens)
        batch: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "position_ids": []}
        for rows, used in zip(packs, tokens, strict=True):
            padding = width - used
            input_ids = [token for row in rows for token in examples[row]["input_ids"]]
            labels = [label for row in rows for label in [IGNORED, *examples[row]["labels"][1:]]]
            batch["input_ids"].append(input_ids + [self.pad_token_id] * padding)
            batch["labels"].append(labels + [IGNORED] * padding)
            # Each padding token is a sequence of its own.
            batch["position_ids"].append([at for row in rows for at in range(lengths[row])] + [0] * padding)
        return {name: torch.tensor(values) for name, values in batch.items()} | {"tokens": torch.tensor(tokens)}
