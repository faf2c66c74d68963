"""The frames of an Arrow IPC stream, cut out of bytes as they come in and turned into checked record batches.

Invariants: never more than one message of `MAX_MESSAGE_BYTES` is held, whatever its header says; a stream ends with its
end mark, so that one that was cut off is noticed wherever the cut is; a batch that comes out has valid offsets and UTF-8,
the expected schema and no nulls. Format: https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from shared.errors import HeadwaterError

# Room for the largest group there can be: 256 responses of 32,768 tokens.
MAX_MESSAGE_BYTES = 192 << 20
MAX_METADATA_BYTES = 1 << 20
_PREFIX = struct.Struct("<II")
_CONTINUATION = 0xFFFFFFFF
_SCHEMA_HEADER, _RECORD_BATCH_HEADER = 1, 3


def whole(schema: pa.Schema, batches: Sequence[pa.RecordBatch]) -> memoryview:
    """A stream of these record batches, written in one piece of memory."""
    batch_bytes = sum(pa.ipc.get_record_batch_size(batch) for batch in batches)
    buffer = pa.allocate_buffer(schema.serialize().size + batch_bytes + 2 * _PREFIX.size)
    sink = pa.FixedSizeBufferWriter(buffer)
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return memoryview(buffer)[: sink.tell()]


def bad_arrow(why: str, code: str = "invalid_arrow", status: int = 422) -> HeadwaterError:
    """The one refusal of a stream."""
    return HeadwaterError(code, f"The Arrow stream is refused: {why}.", status)


class StreamReader:
    """Feed it the body piece by piece; record batches come out as soon as they are whole."""

    def __init__(self, schema: pa.Schema) -> None:
        self._expected = schema
        self._schema: pa.Schema | None = None
        self._pieces: list[bytes | memoryview] = []
        self._held_bytes = 0
        self._wanted_bytes = _PREFIX.size
        self._ended = False
        self._batches = 0

    def feed(self, data: bytes) -> Iterator[pa.RecordBatch]:
        """The batches that end in this piece. Raises: HeadwaterError `invalid_arrow`, `arrow_too_large`, `wrong_schema`."""
        self._pieces.append(data)
        self._held_bytes += len(data)
        while not self._ended and self._held_bytes >= self._wanted_bytes:
            held = memoryview(b"".join(self._pieces)) if len(self._pieces) > 1 else memoryview(self._pieces[0])
            self._pieces = [held]
            self._wanted_bytes = self._message_bytes(held)
            if self._held_bytes < self._wanted_bytes:
                break
            message, rest = held[: self._wanted_bytes], held[self._wanted_bytes :]
            self._pieces, self._held_bytes = [rest], len(rest)
            self._ended = self._wanted_bytes == _PREFIX.size
            self._wanted_bytes = _PREFIX.size
            batch = None if self._ended else self._take(message)
            if batch is not None:
                yield batch
        if self._ended and self._held_bytes:
            raise bad_arrow("there are bytes after its end mark")

    def close(self) -> None:
        """The body is over. Raises: HeadwaterError when the stream is not."""
        if not self._ended:
            where = f"after {self._batches} whole record batches" if self._schema is not None else "before its schema"
            raise bad_arrow(f"it ends {where}, without its end mark; nothing of it is stored: send it again, whole")

    def _message_bytes(self, held: memoryview) -> int:
        """How long the message is that `held` begins with, or how much of it has to be there to know; the end mark is a prefix."""
        mark, metadata_bytes = map(int, _PREFIX.unpack_from(held))
        if mark != _CONTINUATION:
            raise bad_arrow("a message does not begin with the continuation mark 0xFFFFFFFF; is this an IPC stream?")
        if metadata_bytes > MAX_METADATA_BYTES:
            raise bad_arrow(f"a message has {metadata_bytes:,} bytes of metadata", "arrow_too_large", 413)
        header_bytes = _PREFIX.size + metadata_bytes
        if metadata_bytes == 0 or len(held) < header_bytes:
            return header_bytes
        body_bytes: int = _Header(held, _PREFIX.size, header_bytes).body_bytes
        if not 0 <= body_bytes <= MAX_MESSAGE_BYTES:
            raise bad_arrow(
                f"a record batch has {body_bytes:,} bytes, more than {MAX_MESSAGE_BYTES:,}; send smaller batches",
                "arrow_too_large",
                413,
            )
        return header_bytes + body_bytes

    def _take(self, message: memoryview) -> pa.RecordBatch | None:
        header = _Header(message, _PREFIX.size, len(message))
        try:
            if self._schema is None:
                self._schema = self._checked_schema(header, message)
                return None
            if header.kind != _RECORD_BATCH_HEADER:
                raise bad_arrow("it has a message that is neither a schema nor a record batch")
            if header.is_compressed:
                raise bad_arrow("its buffers are compressed; send them plain, or the whole body as gzip")
            batch = pa.ipc.read_record_batch(pa.py_buffer(message), self._schema)
            batch.validate(full=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise bad_arrow(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
        self._batches += 1
        for name, column in zip(self._schema.names, batch.columns, strict=True):
            _refuse_nulls(name, column)
        return batch

    def _checked_schema(self, header: "_Header", message: memoryview) -> pa.Schema:
        if header.kind != _SCHEMA_HEADER:
            raise bad_arrow("it does not begin with a schema")
        found = pa.ipc.read_schema(pa.py_buffer(message))
        if found.names != self._expected.names:
            columns = f"{', '.join(self._expected.names)}, in this order; it has {', '.join(found.names) or 'none'}"
            raise bad_arrow(f"its columns have to be {columns}", "wrong_schema")
        for name, is_type, wanted in zip(found.names, found.types, self._expected.types, strict=True):
            if not _is_same(is_type, wanted):
                raise bad_arrow(f"column {name} has type {is_type}, not {wanted}", "wrong_schema")
        return found


def _is_same(found: Any, wanted: Any) -> bool:
    """Whether types agree; whether a field may be null, and what a list calls its items, does not matter."""
    if pa.types.is_list(found) and pa.types.is_list(wanted):
        return _is_same(found.value_type, wanted.value_type)
    if pa.types.is_struct(found) and pa.types.is_struct(wanted):
        return len(found) == len(wanted) and all(
            one.name == other.name and _is_same(one.type, other.type) for one, other in zip(found, wanted, strict=True)
        )
    return bool(found == wanted)


class _Header:
    """What the flatbuffer `Message` of a frame says: https://github.com/apache/arrow/blob/main/format/Message.fbs."""

    def __init__(self, data: memoryview, start: int, end: int) -> None:
        self._data, self._end = data, end
        try:
            message = start + self._number("<I", start)
            self.kind = self._field(message, 1, "<B")
            self.body_bytes = self._field(message, 3, "<q")
            position = self._position(message, 2)
            table = None if position is None else position + self._number("<I", position)
            self.is_compressed = (
                self.kind == _RECORD_BATCH_HEADER and table is not None and self._position(table, 3) is not None
            )
        except struct.error as error:
            raise bad_arrow("the header of a message is damaged") from error

    def _position(self, table: int, field: int) -> int | None:
        """Where a field of a table is, or None when it has its default."""
        vtable = table - self._number("<i", table)
        size = self._number("<H", vtable)
        offset = self._number("<H", vtable + 4 + 2 * field) if 4 + 2 * field < size else 0
        return table + offset if offset else None

    def _field(self, table: int, field: int, kind: str) -> int:
        position = self._position(table, field)
        return 0 if position is None else self._number(kind, position)

    def _number(self, kind: str, position: int) -> int:
        if not 0 <= position <= self._end - struct.calcsize(kind):
            raise struct.error("outside of the header")
        return int(struct.unpack_from(kind, self._data, position)[0])


def _refuse_nulls(name: str, column: Any) -> None:
    """Raise for a null anywhere in a column, nested ones too."""
    if column.null_count:
        raise bad_arrow(f"{name} has a null; every value must be there", "null_value")
    if pa.types.is_list(column.type):
        _refuse_nulls(name, column.flatten())
    elif pa.types.is_struct(column.type):
        for field, child in zip(column.type, column.flatten(), strict=True):
            _refuse_nulls(f"{name}.{field.name}", child)
