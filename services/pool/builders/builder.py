"""What every recipe is: candidates out of one question (or group) at a time, then one choice among all of them.

The rows themselves wait on disk meanwhile (`spool`); a choice sees a kind and a lot of each, so memory grows by some bytes a row.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.pool.builders.lots import Lots, Mask

Item = TypeVar("Item", contravariant=True)
Kinds = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that may be chosen: its columns, what the recipe's choice tells it apart by (below 256), and its lot."""

    record: dict[str, Any]
    kind: int
    lot: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Which candidates become rows, and which of the rows that may be mixed in."""

    own: Mask
    replayed: Mask


class Builder(Protocol[Item]):
    """A recipe at work on one snapshot. `dropped` counts what is left out, by reason."""

    @property
    def schema(self) -> pa.Schema:
        """The columns of its rows."""

    @property
    def dropped(self) -> Counter[str]:
        """What was left out so far."""

    def candidates(self, item: Item) -> Iterator[Candidate]:
        """The rows that one question or group may give."""

    def choose(self, kinds: Kinds, lots: Lots, replayable: int) -> Choice:
        """Which of all candidates, and of `replayable` rows of another snapshot, are taken."""

    def complete(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with what is known of them only when all candidates are."""


def nothing_replayed(replayable: int) -> Mask:
    """The choice of a recipe that mixes nothing in."""
    return np.zeros(replayable, dtype=np.bool_)
