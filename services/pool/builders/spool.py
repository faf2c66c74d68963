"""Candidate rows on disk until all of them are known; memory keeps nine bytes of each, and one page of rows."""

import tempfile
from array import array
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from services.pool.builders.builder import Builder, Candidate, Kinds
from services.pool.builders.lots import Lots, Mask


class Spool:
    """What a builder's candidates are put into, page by page, and read from once, in the same order."""

    def __init__(self, builder: Builder[Any]) -> None:
        self._builder = builder
        self._file = tempfile.TemporaryFile(prefix="headwater-snapshot-")  # noqa: SIM115 (closed by __exit__)
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._writer = pa.ipc.new_stream(self._file, builder.schema, options=options)
        self._kinds, self._lots = array("B"), array("Q")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def kinds(self) -> Kinds:
        """The kind of each candidate."""
        return np.frombuffer(self._kinds, dtype=np.uint8)

    @property
    def lots(self) -> Lots:
        """The lot of each candidate."""
        return np.frombuffer(self._lots, dtype=np.uint64)

    def add(self, items: Iterable[Any]) -> None:
        """Put in the candidates of these questions or groups."""
        self._put([candidate for item in items for candidate in self._builder.candidates(item)])

    def chosen(self, mask: Mask) -> Iterator[pa.RecordBatch]:
        """The candidates of a choice. It ends the adding."""
        self._writer.close()
        self._file.seek(0)
        with pa.ipc.open_stream(self._file) as reader:
            at = 0
            for batch in reader:
                yield self._builder.complete(batch.filter(pa.array(mask[at : at + batch.num_rows])))
                at += batch.num_rows

    def _put(self, candidates: list[Candidate]) -> None:
        if candidates:
            records = [candidate.record for candidate in candidates]
            self._writer.write_batch(pa.RecordBatch.from_pylist(records, schema=self._builder.schema))
            self._kinds.extend(candidate.kind for candidate in candidates)
            self._lots.extend(candidate.lot for candidate in candidates)
