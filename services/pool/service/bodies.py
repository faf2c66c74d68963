"""The bytes of a submission: unpacked as they stream in, with a bound on what a few bytes may become.

Invariant: never more than `PIECE_BYTES` of the unpacked stream are held.
"""

import zlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect

from shared.bodies import BodyError
from shared.errors import HeadwaterError

PIECE_BYTES = 1 << 18
MAX_RATIO = 250  # deflate reaches 1,032 on one repeated byte; questions that repeat each other reach 100
FREE_BYTES = 64 << 20  # … which is not asked of the first bytes
_GZIP = 16 + zlib.MAX_WBITS
_MAGIC = b"\x1f\x8b"


class BrokenStreamError(HeadwaterError):
    """The stream cannot be read on; what was read before stands."""


async def received(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The body of a request. Raises: BrokenStreamError when its sender is gone, or silent."""
    try:
        async for chunk in stream:
            yield chunk
    except BodyError as error:
        raise BrokenStreamError(error.code, error.detail, error.status_code) from error
    except ClientDisconnect as error:
        raise BrokenStreamError("client_disconnected", "The request ended before its body did.", 400) from error


async def unpacked(stream: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """A body as its `Content-Encoding` says. Raises: HeadwaterError `unsupported_encoding`, BrokenStreamError."""
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise HeadwaterError(
            "unsupported_encoding", f"Content-Encoding {encoding[:50]!r} is not read; send gzip, or leave it out.", 415
        )
    async for piece in gunzipped(stream) if "gzip" in encoding else stream:
        yield piece


async def unpacked_file(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A file, unpacked where its first two bytes say that it is gzip. Raises: BrokenStreamError."""
    head, whole = await peeked(stream, len(_MAGIC))
    async for piece in gunzipped(whole) if head.startswith(_MAGIC) else whole:
        yield piece


async def peeked(stream: AsyncIterator[bytes], count: int) -> tuple[bytes, AsyncIterator[bytes]]:
    """The first bytes of a stream, at least `count` where there are so many, and the whole stream."""
    head = b""
    async for chunk in stream:
        head += chunk
        if len(head) >= count:
            break
    return head, _behind(head, stream)


async def gunzipped(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The content of one gzip member or several. Raises: BrokenStreamError `gzip_broken`, `gzip_truncated`, `gzip_bomb`."""
    inflate, began, ended = zlib.decompressobj(_GZIP), False, False
    packed = content = 0
    async for chunk in stream:
        packed += len(chunk)
        waiting = chunk
        while waiting := waiting if began or not ended else waiting.lstrip(b"\0"):  # padding behind a member
            try:
                piece = inflate.decompress(waiting, PIECE_BYTES)
            except zlib.error as error:
                message = f"The body is not gzip, or is damaged ({error}); send it again."
                raise BrokenStreamError("gzip_broken", message, 400) from error
            began = True
            waiting = inflate.unconsumed_tail
            if inflate.eof:
                waiting = inflate.unused_data
                inflate, began, ended = zlib.decompressobj(_GZIP), False, True
            content += len(piece)
            if content > FREE_BYTES + MAX_RATIO * packed:
                message = (
                    f"The gzip body unpacks to more than {MAX_RATIO} times its size; send it unpacked, or in parts."
                )
                raise BrokenStreamError("gzip_bomb", message, 413)
            if piece:
                yield piece
    if began or not ended:
        raise BrokenStreamError("gzip_truncated", "The gzip body ends before its content does; send it again.", 400)


async def _behind(head: bytes, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if head:
        yield head
    async for chunk in stream:
        yield chunk
