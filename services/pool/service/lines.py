"""A submission's bytes cut into numbered items while they stream in: lines of NDJSON, or elements of one JSON array.

Invariant: never more than one item of `MAX_ITEM_BYTES` and one chunk of the stream are held; the rest of a larger item
is read and thrown away.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum
from typing import NamedTuple, Protocol

from shared.layout import is_array

MAX_ITEM_BYTES = 1_000_000
_STRUCTURE = re.compile(rb'["\\\[\]{},]')
_IN_STRING = re.compile(rb'["\\]')
_WHITE = b" \t\r\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Layout(StrEnum):
    """What a stream was said to be; only what may be an array is looked at for one.

    `lines`: NDJSON, also where the first line begins like an array. `document`: one JSON array, or one JSON value.
    `file`: one JSON array, or lines, whichever its beginning shows (`shared.layout`).
    """

    LINES = "lines"
    DOCUMENT = "document"
    FILE = "file"


class Splitter(Protocol):
    """Cuts a stream into items."""

    def feed(self, chunk: bytes) -> Iterator[Item]:
        """The items that end in this chunk."""

    def close(self) -> Iterator[Item]:
        """The items that end with the stream."""


class Item(NamedTuple):
    """One item, counted from 1; `data` None when it is larger than the limit."""

    line: int
    data: bytes | None


class _Buffer:
    """Collects one item and forgets it as soon as it is too large."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._data = bytearray()
        self._too_large = False

    def add(self, data: bytes) -> None:
        if self._too_large:
            return
        if len(self._data) + len(data) > self._limit_bytes:
            self._too_large = True
            self._data.clear()
        else:
            self._data += data

    def take(self) -> bytes | None:
        data = None if self._too_large else bytes(self._data)
        self._data.clear()
        self._too_large = False
        return data


class LineSplitter:
    """NDJSON: an item a line. White lines are counted and left out."""

    def __init__(self, limit_bytes: int = MAX_ITEM_BYTES) -> None:
        self._buffer = _Buffer(limit_bytes)
        self._line = 0

    def feed(self, chunk: bytes) -> Iterator[Item]:
        """The items that end in this chunk."""
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            self._buffer.add(part)
            yield from self._take()
        self._buffer.add(rest)

    def close(self) -> Iterator[Item]:
        """The last item, where the stream does not end in a line break."""
        yield from self._take()

    def _take(self) -> Iterator[Item]:
        self._line += 1
        data = self._buffer.take()
        if data is None or data.strip(_WHITE):
            yield Item(self._line, data)


class ArraySplitter:
    """One JSON array: an item an element, cut at the commas of the array itself; the elements are not judged here.

    It is fed what comes after the opening bracket.
    """

    def __init__(self, limit_bytes: int = MAX_ITEM_BYTES) -> None:
        self._buffer = _Buffer(limit_bytes)
        self._line = 0
        self._depth = 0
        self._in_string = False
        self._ended = False
        self._escaped = False

    def feed(self, chunk: bytes) -> Iterator[Item]:
        """The items that end in this chunk."""
        start = position = int(self._escaped and bool(chunk))
        self._escaped = self._escaped and not chunk
        self._buffer.add(chunk[:start])
        while not self._ended and (found := self._next(chunk, position)) is not None:
            position = found.end()
            if found.group() == b"\\":
                # The escaped character, perhaps the first of the next chunk, is no structure.
                self._escaped = self._in_string and position == len(chunk)
                position += self._in_string
            elif self._ends_element(found.group()):
                self._buffer.add(chunk[start : position - 1])
                start = position
                yield from self._take()
        self._buffer.add(chunk[start:])

    def close(self) -> Iterator[Item]:
        """What is left: nothing but white space behind a whole array, else a broken item."""
        rest = self._buffer.take()
        if not self._ended or rest is None or rest.strip(_WHITE):
            yield Item(self._line + 1, rest)

    def _next(self, chunk: bytes, position: int) -> re.Match[bytes] | None:
        return (_IN_STRING if self._in_string else _STRUCTURE).search(chunk, position)

    def _ends_element(self, byte: bytes) -> bool:
        if byte == b'"':
            self._in_string = not self._in_string
        elif byte in b"[{":
            self._depth += 1
        elif byte in b"]}" and self._depth:
            self._depth -= 1
        elif byte == b"]":
            self._ended = True
            return True
        return byte == b"," and self._depth == 0

    def _take(self) -> Iterator[Item]:
        data = self._buffer.take()
        if self._ended and data is not None and not data.strip(_WHITE):
            return  # an empty array, or a comma before the closing bracket
        self._line += 1
        yield Item(self._line, data)


class WholeSplitter:
    """One JSON document: one item."""

    def __init__(self, limit_bytes: int = MAX_ITEM_BYTES) -> None:
        self._buffer = _Buffer(limit_bytes)

    def feed(self, chunk: bytes) -> Iterator[Item]:
        """Nothing yet."""
        self._buffer.add(chunk)
        yield from ()

    def close(self) -> Iterator[Item]:
        """The document."""
        yield Item(1, self._buffer.take())


async def items(
    stream: AsyncIterator[bytes], layout: Layout, *, limit_bytes: int = MAX_ITEM_BYTES
) -> AsyncIterator[list[Item]]:
    """The items of a stream, those that end in one chunk together: the elements of its array, its lines, or one document."""
    splitter: Splitter | None = None
    head = b""
    async for chunk in stream:
        if splitter is not None:
            yield list(splitter.feed(chunk))
            continue
        head += chunk
        if len(head) >= limit_bytes or _shows(head, layout):
            splitter, head = _begin(head, layout, limit_bytes)
            yield list(splitter.feed(head))
            head = b""
    if splitter is None and head.strip(_WHITE):
        splitter, head = _begin(head, layout, limit_bytes)
        yield list(splitter.feed(head))
    if splitter is not None:
        yield list(splitter.close())


def _shows(head: bytes, layout: Layout) -> bool:
    """Whether a stream that begins like this can be no other kind any more, however it goes on."""
    written = head.removeprefix(_BYTE_ORDER_MARK).strip(_WHITE)
    if not written or len(head) <= len(_BYTE_ORDER_MARK):
        return False
    return layout is not Layout.FILE or not written.startswith(b"[") or b"\n" in written


def _begin(head: bytes, layout: Layout, limit_bytes: int) -> tuple[Splitter, bytes]:
    """The splitter for a stream that begins like this, and what to feed it first. No item is longer than the limit."""
    head = head.removeprefix(_BYTE_ORDER_MARK)
    first, _, rest = head.lstrip(_WHITE).partition(b"\n")
    is_alone = layout is Layout.DOCUMENT or not rest.strip(_WHITE)
    if layout is not Layout.LINES and is_array(first[:limit_bytes], is_alone=is_alone):
        return ArraySplitter(limit_bytes), head.lstrip(_WHITE)[1:]
    return (WholeSplitter(limit_bytes) if layout is Layout.DOCUMENT else LineSplitter(limit_bytes)), head
