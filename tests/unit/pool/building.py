"""A builder at work on a few items, as the pool has it work on many."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa

from services.pool.builders.builder import Builder
from services.pool.builders.rows import SCHEMA, Row, read
from services.pool.builders.spool import Spool


class Outcome(NamedTuple):
    """Rows, and what was left out by reason."""

    rows: list[Row]
    dropped: dict[str, int]


def records(builder: Builder[Any], items: Sequence[Any], items_at_once: int = 7) -> list[dict[str, Any]]:
    """The columns of the chosen rows."""
    return list(chain.from_iterable(batch.to_pylist() for batch in batches(builder, items, 0, items_at_once)[0]))


def build(builder: Builder[Any], items: Sequence[Any], replay: Sequence[Row] = (), items_at_once: int = 7) -> Outcome:
    """The chosen rows, then the replayed ones."""
    own, replayed = batches(builder, items, len(replay), items_at_once)
    rows = [row for batch in own for row in read(batch)]
    mixed_in = pa.RecordBatch.from_pylist([row.record() for row in replay], schema=SCHEMA).filter(pa.array(replayed))
    return Outcome([*rows, *read(mixed_in)], {str(reason): count for reason, count in builder.dropped.items()})


def batches(builder: Builder[Any], items: Sequence[Any], replayable: int, items_at_once: int) -> tuple[list[Any], Any]:
    """The chosen candidates, and the mask of the replayed rows."""
    with Spool(builder) as spool:
        for start in range(0, len(items), items_at_once):
            spool.add(items[start : start + items_at_once])
        choice = builder.choose(spool.kinds, spool.lots, replayable)
        return list(spool.chosen(choice.own)), choice.replayed
