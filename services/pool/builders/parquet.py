"""The Parquet file of a snapshot: written and read in pieces, named by its content.

The same rows are the same bytes: row groups of a fixed size whatever the pieces were, no times, pages with checksums. A file
appears under its name only when it is whole.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shared.errors import HeadwaterError

ROWS_PER_GROUP = 512
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Written:
    """A file, how many rows it has, how many of them by rounds, and of which questions: each once."""

    uri: str
    content_hash: str
    rows: int
    rounds: Counter[int]
    question_ids: pa.Array


def write(folder: str, draft: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Written:
    """Write rows into `folder`, first under the name `draft`, which nobody else uses. Raises: OSError."""
    filesystem, root = fsspec.core.url_to_fs(folder)
    filesystem.makedirs(root, exist_ok=True)
    rounds: Counter[int] = Counter()
    questions: list[pa.Array] = []
    try:
        with filesystem.open(f"{root}/{draft}", "wb") as raw:
            file = _Hashing(raw)
            with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
                for table in _row_groups(schema, batches):
                    writer.write_table(table, row_group_size=ROWS_PER_GROUP)
                    rounds.update(table.column("rounds").to_pylist())
                    questions.append(pc.unique(table.column("question_id")))
        name = f"{file.content_hash}.parquet"
        if not (filesystem.exists(f"{root}/{name}") and filesystem.size(f"{root}/{name}") == file.tell()):
            filesystem.mv(f"{root}/{draft}", f"{root}/{name}")
    finally:
        if filesystem.exists(f"{root}/{draft}"):
            filesystem.rm_file(f"{root}/{draft}")
    distinct = pc.unique(pa.chunked_array(questions, pa.string()))
    return Written(f"{folder}/{name}", file.content_hash, rounds.total(), rounds, distinct)


def clear_drafts(folder: str, prefix: str) -> None:
    """Remove what builders that died have left behind under names with this prefix."""
    filesystem, root = fsspec.core.url_to_fs(folder)
    for path in filesystem.glob(f"{root}/{prefix}*"):
        filesystem.rm_file(path)


@contextmanager
def opened(uri: str, whose: str) -> Iterator[Any]:
    """The file, to be read in binary. Raises: HeadwaterError `artifact_missing`."""
    try:
        with fsspec.open(uri, "rb") as file:
            yield file
    except FileNotFoundError as error:
        raise HeadwaterError(
            "artifact_missing", f"The file of snapshot {whose!r} at {uri} is not there.", 409
        ) from error


def require_hash(uri: str, whose: str, content_hash: str) -> None:
    """Read the file once. Raises: HeadwaterError `artifact_missing`, `artifact_damaged`."""
    digest = hashing()
    with opened(uri, whose) as file:
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != content_hash:
        raise damaged(uri, whose)


def require_columns(uri: str, whose: str, schema: pa.Schema) -> None:
    """The rows are what is written now. Raises: HeadwaterError `artifact_missing`, `other_columns`."""
    with opened(uri, whose) as file, pq.ParquetFile(file) as parquet:
        names = parquet.schema_arrow.names
    if names != schema.names:
        message = (
            f"Snapshot {whose!r} has the columns {', '.join(names)}, as an earlier version wrote them, and not "
            f"{', '.join(schema.names)}: it cannot be mixed in; build it again under another key."
        )
        raise HeadwaterError("other_columns", message, 409)


def hashing() -> "hashlib._Hash":
    """What content hashes are made with."""
    return hashlib.sha256()


def damaged(uri: str, whose: str) -> HeadwaterError:
    """The file is not what was written."""
    return HeadwaterError("artifact_damaged", f"The file of snapshot {whose!r} at {uri} is damaged.", 409)


def batches(file: Any, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of an open file, a piece at a time."""
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        yield from parquet.iter_batches(batch_size=ROWS_PER_GROUP, columns=columns)


def _row_groups(schema: pa.Schema, pieces: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows, so many at a time."""
    waiting = schema.empty_table()
    for piece in pieces:
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([piece.cast(schema)])])
        while waiting.num_rows >= ROWS_PER_GROUP:
            yield waiting.slice(0, ROWS_PER_GROUP).combine_chunks()
            waiting = waiting.slice(ROWS_PER_GROUP)
    if waiting.num_rows:
        yield waiting.combine_chunks()


class _Hashing(io.RawIOBase):
    """A file that is written from its beginning to its end, and hashed on the way."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._digest = hashing()
        self._size_bytes = 0

    @property
    def content_hash(self) -> str:
        """sha256 of what was written so far."""
        return self._digest.hexdigest()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Write all of it."""
        view = memoryview(data)
        self._file.write(view)
        self._digest.update(view)
        self._size_bytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """How many bytes were written."""
        return self._size_bytes
