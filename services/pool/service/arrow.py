"""Questions as an Arrow IPC stream: one record batch at a time, its rows in small slices.

Columns are named like the fields of `QuestionIn`; null is the same as a column that is not there. Invariants: nothing of a batch is
read before Arrow has validated it; a batch of more than `MEMORY_BYTES` waits in a file; a batch that says of itself that it unpacks
to more than it is long (compressed buffers, views) is not read. Format: https://arrow.apache.org/docs/format/Columnar.html
"""

import asyncio
import mmap
import struct
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from io import BytesIO
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter, ValidationError

from services.pool.service import items
from services.pool.service.blocks import CHUNK_BYTES, Block, Judged
from services.pool.service.bodies import BrokenStreamError
from services.pool.service.lines import MAX_ITEM_BYTES, Item
from shared.contracts.base import Items
from shared.contracts.questions import QuestionIn, Refusal
from shared.errors import HeadwaterError

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
MEMORY_BYTES = 16 << 20
MAX_BATCH_BYTES = 4 << 30
MAX_HEAD_BYTES = 16 << 20
MAX_WORD_BYTES = 1000
SLICE_ROWS = 1000
BEGINNING = _CONTINUES = b"\xff\xff\xff\xff"
_END = _CONTINUES + bytes(4)
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_QUESTIONS = TypeAdapter(Items[QuestionIn])
_BAD_DATA = (pa.ArrowException, OSError, ValueError)


class _Header(NamedTuple):
    kind: int
    body_bytes: int
    compressed: bool


def _broken(what: str) -> BrokenStreamError:
    what = items.shown(what)
    return BrokenStreamError(
        "arrow_broken", f"The body is not an Arrow IPC stream, or is damaged ({what}); send it again.", 400
    )


class _Bytes:
    """An async stream of bytes, read by length."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream
        self._held = bytearray()

    async def upto(self, count: int) -> bytes:
        """As many bytes as there are, at most `count` and at least one; nothing at the end."""
        if not self._held:
            self._held += await anext(self._stream, b"")
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    async def pieces(self, count: int) -> AsyncIterator[bytes]:
        """Exactly `count` bytes. Raises: BrokenStreamError `arrow_truncated`."""
        while count:
            piece = await self.upto(count)
            if not piece:
                raise BrokenStreamError(
                    "arrow_truncated", "The Arrow stream ends before its end mark; send it again.", 400
                )
            count -= len(piece)
            yield piece

    async def exactly(self, count: int) -> bytes:
        """Exactly `count` bytes, for small counts."""
        return b"".join([piece async for piece in self.pieces(count)])


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffers table is, 0 when it is left out."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0 or 4 + 2 * number >= struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset: int = struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0]
    return table + offset if offset else 0


def _follow(data: bytes, position: int) -> int:
    return position + int(struct.unpack_from("<I", data, position)[0])


def _header(metadata: bytes) -> _Header:
    """What a message says of itself (Message.fbs: version, header type, header, bodyLength). Raises: BrokenStreamError."""
    try:
        message = _follow(metadata, 0)
        kind_at, header_at, length_at = (_field(metadata, message, number) for number in (1, 2, 3))
        kind = metadata[kind_at] if kind_at else 0
        body_bytes = struct.unpack_from("<q", metadata, length_at)[0] if length_at else 0
        compressed = False
        if kind in (_DICTIONARY, _BATCH):
            batch = _follow(metadata, header_at)
            if kind == _DICTIONARY:
                batch = _follow(metadata, _field(metadata, batch, 1))
            compressed = _field(metadata, batch, 3) != 0
    except (struct.error, IndexError) as error:
        raise _broken("a message that cannot be read") from error
    if body_bytes < 0 or kind not in (_SCHEMA, _DICTIONARY, _BATCH):
        raise _broken("a message of no known kind")
    return _Header(kind, body_bytes, compressed)


async def blocks(stream: AsyncIterator[bytes]) -> AsyncIterator[Block]:
    """The rows of the stream. Raises: HeadwaterError (a schema of something else), BrokenStreamError (the stream itself)."""
    source = _Bytes(stream)
    head, line = b"", 1
    while True:
        mark = await source.exactly(8)
        if mark == _END:
            break
        size_bytes = struct.unpack("<i", mark[4:])[0]
        if mark[:4] != _CONTINUES or not 0 < size_bytes <= MAX_HEAD_BYTES:
            raise _broken("an Arrow file is not a stream" if mark[:6] == b"ARROW1" else "no message where one begins")
        metadata = await source.exactly(size_bytes)
        header = _header(metadata)
        _check_size(header, head)
        if header.kind == _BATCH:
            with _Spool(header.body_bytes) as spool:
                await spool.write(head + mark + metadata)
                async for piece in source.pieces(header.body_bytes):
                    await spool.write(piece)
                await spool.write(_END)
                batch = spool.batch()
                for block in _slices(batch, line):
                    yield block
                    spool.forget()
                line += batch.num_rows
        else:
            head += mark + metadata + await source.exactly(header.body_bytes)
            if header.kind == _SCHEMA:
                _check_schema(head)
    if await source.upto(1):
        raise _broken("bytes behind its end")


def _check_size(header: _Header, head: bytes) -> None:
    if header.compressed:
        message = (
            "The Arrow stream has compressed buffers, which are not read; write it without, and gzip the whole body."
        )
        raise BrokenStreamError("arrow_compressed", message, 415)
    if header.kind == _BATCH and header.body_bytes > MAX_BATCH_BYTES:
        message = f"A record batch is larger than {MAX_BATCH_BYTES:,} bytes; write smaller ones."
        raise BrokenStreamError("arrow_batch_too_large", message, 413)
    if header.kind != _BATCH and len(head) + header.body_bytes > MAX_HEAD_BYTES:
        message = f"The schema and dictionaries are larger than {MAX_HEAD_BYTES:,} bytes; write texts as plain strings."
        raise BrokenStreamError("arrow_batch_too_large", message, 413)
    if header.kind != _SCHEMA and not head:
        raise _broken("rows before their schema")


def _check_schema(head: bytes) -> None:
    """Raises: HeadwaterError `arrow_schema` that names the column."""
    try:
        schema = pa.ipc.open_stream(pa.py_buffer(head + _END)).schema
        columns = [(name, schema.field(at).type) for at, name in enumerate(schema.names)]
    except _BAD_DATA as error:
        raise _broken(str(error)) from error
    known = tuple(QuestionIn.model_fields)
    for name, kind in columns:
        if name not in known:
            raise _schema_error(f"has an unknown column '{items.shown(name)}'; known are {', '.join(known)}")
        if schema.names.count(name) > 1:
            raise _schema_error(f"has the column '{name}' twice; name each once")
        if not pa.types.is_null(kind) and not _is_text(kind.value_type if pa.types.is_dictionary(kind) else kind):
            raise _schema_error(f"has the column '{name}' of type {str(kind)[:100]}; write strings")
    for name in ("question", "answer"):
        if name not in schema.names:
            raise _schema_error(f"has no column '{name}'; add it")


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _schema_error(what: str) -> HeadwaterError:
    return HeadwaterError("arrow_schema", f"The Arrow stream {what}.", 422)


class _Spool:
    """One record batch with what it takes to read it: in memory, or in a file that is mapped."""

    def __init__(self, size_bytes: int) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile() if size_bytes > MEMORY_BYTES else BytesIO()  # noqa: SIM115
        self._map: mmap.mmap | None = None

    def __enter__(self) -> "_Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()  # the mapping ends with its last slice

    async def write(self, data: bytes) -> None:
        if isinstance(self._file, BytesIO):
            self._file.write(data)
        else:
            await asyncio.to_thread(self._file.write, data)

    def batch(self) -> Any:
        """The record batch, not validated yet. Raises: BrokenStreamError."""
        if isinstance(self._file, BytesIO):
            data = pa.py_buffer(self._file.getvalue())
        else:
            self._file.flush()
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            data = pa.py_buffer(self._map)
        try:
            batch = pa.ipc.open_stream(data).read_next_batch()
            batch.validate()
        except (*_BAD_DATA, StopIteration) as error:
            raise _broken(str(error)) from error
        return batch

    def forget(self) -> None:
        """Let the pages of the file go from memory; they are read again where they are needed."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)


class Rows:
    """Some rows of a record batch, validated."""

    def __init__(self, columns: dict[str, Any], count: int, line: int, size_bytes: int) -> None:
        self._columns = columns
        self._count = count
        self._line = line
        self.size_bytes = size_bytes

    def __len__(self) -> int:
        """How many rows."""
        return self._count

    def judge(self) -> list[Judged]:
        """Judge each row."""
        lines = range(self._line, self._line + self._count)
        if self.size_bytes > MAX_ITEM_BYTES and self._count == 1:
            return [Judged(self._line, items.read(Item(self._line, None)))]
        questions = self._clean()
        if questions is not None:
            return list(map(Judged, lines, questions))
        return [Judged(line, self._judge_one(at, line)) for at, line in enumerate(lines)]

    def _clean(self) -> Sequence[QuestionIn] | None:
        """The questions, when all rows are without a fault."""
        try:
            texts = {name: column.cast(pa.large_string()) for name, column in self._columns.items()}
        except pa.ArrowException:
            return None
        if any(pc.any(pc.match_substring(text, "\0")).as_py() for text in texts.values()):
            return None
        names = tuple(texts)
        rows = zip(*(text.to_pylist() for text in texts.values()), strict=True)
        try:
            values = [
                {name: value for name, value in zip(names, row, strict=True) if value is not None} for row in rows
            ]
            questions = _QUESTIONS.validate_python(values)
        except ValidationError:
            return None
        return questions if all(map(items.is_faultless, questions)) else None

    def _judge_one(self, at: int, line: int) -> QuestionIn | Refusal:
        values = {}
        for name, column in self._columns.items():
            if (data := column[at].as_py()) is not None:
                try:
                    values[name] = data.decode()
                except UnicodeDecodeError as error:
                    return items.not_utf8(Item(line, data), error, name)
        return items.question(Item(line, b""), values)


def _slices(batch: Any, line: int) -> Iterator[Rows]:
    """The rows of a batch, a few at a time; a row that is larger than an item may be comes alone."""
    for start in range(0, batch.num_rows, SLICE_ROWS):
        part = batch.slice(start, SLICE_ROWS)
        names = [field.name for field in part.schema if not pa.types.is_null(field.type)]
        columns = {name: _column(part.column(name)) for name in names}
        sizes = np.zeros(part.num_rows, np.int64)
        for column in columns.values():
            sizes += pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
        for begin, end in _cuts(sizes):
            cut = {name: column.slice(begin, end - begin) for name, column in columns.items()}
            yield Rows(cut, end - begin, line + start + begin, int(sizes[begin:end].sum()))


def _column(column: Any) -> Any:
    """A validated column as bytes: whether they are UTF-8 is asked of each row. Raises: BrokenStreamError."""
    try:
        if pa.types.is_dictionary(column.type):
            column.validate(full=True)
            if (pc.max(pc.binary_length(column.dictionary)).as_py() or 0) > MAX_WORD_BYTES:
                message = f"A dictionary has a text of more than {MAX_WORD_BYTES:,} bytes; write that column as plain strings."
                raise BrokenStreamError("arrow_batch_too_large", message, 413)
            column = column.dictionary_decode()
        data = column.view(pa.binary() if pa.types.is_string(column.type) else pa.large_binary())
        data.validate(full=True)
    except _BAD_DATA as error:
        raise _broken(str(error)) from error
    return data


def _cuts(sizes: Any) -> Iterator[tuple[int, int]]:
    """(begin, end) of rows that are together not larger than a chunk, the too large ones alone."""
    begin = held = 0
    for at, size in enumerate(sizes.tolist()):
        if at > begin and (held + size > CHUNK_BYTES or size > MAX_ITEM_BYTES or held > MAX_ITEM_BYTES):
            yield begin, at
            begin, held = at, 0
        held += size
    if begin < len(sizes):
        yield begin, len(sizes)
