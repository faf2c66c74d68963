"""Bodies of handed-in groups, JSON or Arrow, gzip or not, as chunks of groups.

Limits: a JSON body is at most MAX_JSON_BYTES, an Arrow stream may be of any length since it is taken message by message; both
are counted after decompression, of which never more than PIECE_BYTES is done ahead.
"""

import zlib
from collections.abc import AsyncIterator

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from shared import arrow
from shared.arrow import hand_in
from shared.arrow.stream import StreamReader
from shared.bodies import refuse_shape
from shared.contracts.orders import GroupBatch
from shared.errors import HeadwaterError
from shared.packed import PackedGroupIn, pack_group_in

MAX_JSON_BYTES = 64 << 20
PIECE_BYTES = 1 << 20
_GZIP = 16 + zlib.MAX_WBITS


def groups(request: Request) -> AsyncIterator[list[PackedGroupIn]]:
    """The groups of a request, chunk by chunk. Raises: HeadwaterError, BodyError, RequestValidationError, also
    between chunks."""
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind == arrow.MEDIA_TYPE:
        return _arrow(request)
    if kind == "application/json":
        return _json(request)
    message = f"Groups cannot be read from content type {kind!r}; send application/json or {arrow.MEDIA_TYPE}."
    raise HeadwaterError("unsupported_type", message, 415)


async def _arrow(request: Request) -> AsyncIterator[list[PackedGroupIn]]:
    reader = StreamReader(hand_in.SCHEMA)
    async for piece in _plain(request):
        for batch in reader.feed(piece):
            yield hand_in.read(batch)
    reader.close()


async def _json(request: Request) -> AsyncIterator[list[PackedGroupIn]]:
    body = bytearray()
    async for piece in _plain(request):
        body += piece
        if len(body) > MAX_JSON_BYTES:
            message = f"A JSON body has at most {MAX_JSON_BYTES:,} bytes; send fewer groups, or {arrow.MEDIA_TYPE}."
            raise HeadwaterError("too_large", message, 413)
    await refuse_shape(body)
    try:
        batch = GroupBatch.model_validate_json(body)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        if errors[0]["type"] == "json_invalid":
            raise HeadwaterError("invalid_request", f"The body is not JSON: {errors[0]['msg']}.", 422) from error
        raise RequestValidationError(errors) from error
    yield [pack_group_in(group) for group in batch.groups]


async def _plain(request: Request) -> AsyncIterator[bytes]:
    """The pieces of the body, decompressed."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        async for piece in _pieces(request):
            yield piece
    elif encoding == "gzip":
        async for piece in _unzipped(_pieces(request)):
            yield piece
    else:
        message = f"Content encoding {encoding!r} is not known; send gzip, or none."
        raise HeadwaterError("unsupported_encoding", message, 415)


async def _unzipped(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    unzip = zlib.decompressobj(_GZIP)
    async for piece in pieces:
        rest, is_more = piece, True
        while is_more:
            try:
                plain = unzip.decompress(rest, PIECE_BYTES)
            except zlib.error as error:
                raise _bad_gzip(str(error)) from error
            yield plain
            rest, is_more = unzip.unconsumed_tail, len(plain) == PIECE_BYTES
        if unzip.unused_data:
            raise _bad_gzip("there are bytes after its end")
    if not unzip.eof:
        raise _bad_gzip("it ends before its end mark; send it again, whole")


def _bad_gzip(why: str) -> HeadwaterError:
    return HeadwaterError("invalid_gzip", f"The gzip body cannot be read: {why}.", 422)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """What comes over the wire. Raises: HeadwaterError `client_disconnected`."""
    try:
        async for piece in request.stream():
            yield piece
    except ClientDisconnect as error:
        raise HeadwaterError("client_disconnected", "The request ended before its body did.", 400) from error
