"""Unpacking: the same bytes wherever the chunks are cut, and a bound on what a few bytes become."""

import gzip
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pool.service.bodies import PIECE_BYTES, BrokenStreamError, gunzipped, unpacked, unpacked_file
from shared.errors import HeadwaterError


async def stream(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def joined(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=3), st.integers(1, 50), st.integers(0, 5))
async def test_members_are_unpacked_wherever_they_are_cut(parts: list[bytes], size: int, padding: int):
    data = b"".join(map(gzip.compress, parts)) + bytes(padding)
    assert await joined(gunzipped(stream(data, size))) == b"".join(parts)
    assert await joined(unpacked_file(stream(data, size))) == b"".join(parts)
    assert await joined(unpacked(stream(data, size), "gzip")) == b"".join(parts)


@given(st.binary(max_size=100).filter(lambda data: data[:2] != b"\x1f\x8b"), st.integers(1, 9))
async def test_what_is_not_gzip_is_passed_on(data: bytes, size: int):
    assert await joined(unpacked_file(stream(data, size))) == data
    assert await joined(unpacked(stream(data, size), "")) == data


@given(st.binary(min_size=1, max_size=200), st.data())
async def test_a_cut_member_is_said(content: bytes, data: st.DataObject):
    packed = gzip.compress(content)
    with pytest.raises(BrokenStreamError) as error:
        await joined(gunzipped(stream(packed[: data.draw(st.integers(0, len(packed) - 1))], 7)))
    assert error.value.code == "gzip_truncated"


@pytest.mark.parametrize("data", [b"not gzip at all", gzip.compress(b"x" * 50, mtime=0)[:-8] + b"12345678"])
async def test_damage_is_said(data: bytes):
    with pytest.raises(BrokenStreamError, match="is damaged") as error:
        await joined(gunzipped(stream(data, 7)))
    assert error.value.status == 400


async def test_a_bomb_is_stopped_piece_by_piece():
    bomb = gzip.compress(bytes(200_000_000))
    sizes: list[int] = []

    async def unpack() -> None:
        async for piece in gunzipped(stream(bomb, 1 << 16)):
            sizes.append(len(piece))

    with pytest.raises(BrokenStreamError) as error:
        await unpack()
    assert (error.value.code, error.value.status) == ("gzip_bomb", 413)
    assert max(sizes) <= PIECE_BYTES
    assert sum(sizes) < 150_000_000


async def test_another_encoding_is_refused():
    with pytest.raises(HeadwaterError, match="'br' is not read"):
        await joined(unpacked(stream(b"x", 1), "br"))
