"""A ready snapshot's rows on their way out, as a stream: the Parquet file as it is, or a JSON object a line."""

import json
from collections.abc import AsyncIterator, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from services.pool.builders import parquet
from shared.contracts.snapshots import ExportFormat, Snapshot, SnapshotStatus
from shared.errors import ConflictError

_TYPES = {
    ExportFormat.PARQUET: "application/vnd.apache.parquet",
    ExportFormat.JSONL: "application/x-ndjson",
}


@dataclass(frozen=True)
class Export:
    """A file on its way out; `size_bytes` where it is known beforehand."""

    name: str
    media_type: str
    size_bytes: int | None
    chunks: AsyncIterator[bytes]


async def export(snapshot: Snapshot, file_format: ExportFormat) -> Export:
    """The rows of a snapshot. A damaged file ends the stream before its end, so that it is never taken for a whole one.

    Raises: ConflictError `snapshot_not_ready`, HeadwaterError `artifact_missing`, OSError.
    """
    if snapshot.status is not SnapshotStatus.READY:
        message = f"Snapshot {snapshot.key!r} is {snapshot.status}; it can be exported when it is ready."
        raise ConflictError("snapshot_not_ready", message)
    stack = ExitStack()
    file = await run_in_threadpool(stack.enter_context, parquet.opened(snapshot.uri, snapshot.key))
    is_parquet = file_format is ExportFormat.PARQUET
    size_bytes = await run_in_threadpool(_size_bytes, file) if is_parquet else None
    chunks = _bytes(file, snapshot, stack) if is_parquet else _lines(file, stack)
    name = f"{snapshot.id}.{file_format}"
    return Export(name, _TYPES[file_format], size_bytes, _closing(chunks))


async def _closing(chunks: Generator[bytes, None, None]) -> AsyncIterator[bytes]:
    """The chunks, made in a thread; what they are read from is closed however it ends."""
    try:
        async for chunk in iterate_in_threadpool(chunks):
            yield chunk
    finally:
        chunks.close()


def _bytes(file: Any, snapshot: Snapshot, stack: ExitStack) -> Generator[bytes, None, None]:
    """The file, checked on the way: its last chunk is only given when all of it has the recorded hash."""
    digest = parquet.hashing()
    with stack:
        chunk = file.read(parquet.READ_BYTES)
        while chunk:
            digest.update(chunk)
            following = file.read(parquet.READ_BYTES)
            if not following and digest.hexdigest() != snapshot.content_hash:
                raise parquet.damaged(snapshot.uri, snapshot.key)
            yield chunk
            chunk = following


def _lines(file: Any, stack: ExitStack) -> Generator[bytes, None, None]:
    """A JSON object a row; each page of the file has a checksum of its own."""
    with stack:
        for batch in parquet.batches(file):
            lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in batch.to_pylist())
            yield "".join(f"{line}\n" for line in lines).encode()


def _size_bytes(file: Any) -> int:
    size_bytes: int = file.seek(0, 2)
    file.seek(0)
    return size_bytes
