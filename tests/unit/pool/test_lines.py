"""Cutting a stream: the same items wherever the chunks are cut, and never more than one item held."""

import json
from collections.abc import AsyncIterator
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from services.pool.service.lines import ArraySplitter, Item, Layout, LineSplitter, items

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a"\\[]{},:\né ', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a"\\[]{}', max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
CUTS = st.lists(st.integers(1, 9), max_size=40)


async def chunks(data: bytes, cuts: list[int]) -> AsyncIterator[bytes]:
    ends = [0, *accumulate(cuts)]
    for start, end in zip(ends, [*ends[1:], len(data)], strict=True):
        yield data[start:end]
    yield data[max(ends[-1], len(data)) :]


async def cut(data: bytes, cuts: list[int], layout: Layout = Layout.DOCUMENT, *, limit: int = 10_000) -> list[Item]:
    return [item async for part in items(chunks(data, cuts), layout, limit_bytes=limit) for item in part]


PREFIXES = st.sampled_from([b"", b" \n", b"\xef\xbb\xbf"])


@given(
    st.lists(JSON),
    CUTS,
    st.booleans(),
    st.sampled_from([None, 2]),
    PREFIXES,
    st.sampled_from([Layout.DOCUMENT, Layout.FILE]),
)
async def test_an_array_is_cut_into_its_elements(
    values: list[object], cuts: list[int], ascii_only: bool, indent: int | None, prefix: bytes, layout: Layout
):
    data = prefix + json.dumps(values, ensure_ascii=ascii_only, indent=indent).encode() + b" \n"
    found = await cut(data, cuts, layout)
    assert [json.loads(item.data or b"") for item in found] == values
    assert [item.line for item in found] == list(range(1, len(values) + 1))


@given(st.lists(JSON), CUTS, PREFIXES)
async def test_lines_are_cut_and_numbered_whatever_the_first_one_begins_with(
    values: list[object], cuts: list[int], prefix: bytes
):
    data = prefix + "\n\n".join(map(json.dumps, values)).encode()
    found = await cut(data, cuts, Layout.LINES)
    first = 1 + prefix.count(b"\n")
    assert [(item.line, json.loads(item.data or b"")) for item in found] == [
        (first + 2 * position, value) for position, value in enumerate(values)
    ]


@given(CUTS, PREFIXES)
async def test_a_file_is_lines_when_its_first_is_a_value_and_another_follows(cuts: list[int], prefix: bytes):
    for first, second in ((b'{"a": 1}', b"[2]"), (b'["oops"]', b'{"a": 1}'), (b"[]", b"[}")):
        data = prefix + first + b" \r\n\n" + second
        found = [(item.data or b"").strip() for item in await cut(data, cuts, Layout.FILE)]
        assert found == [first, second]


@given(CUTS)
async def test_a_first_line_longer_than_an_item_is_an_array(cuts: list[int]):
    found = await cut(b"[1, 2, 3, 4]\n{}", cuts, Layout.FILE, limit=10)
    assert [item.data for item in found] == [b"1", b" 2", b" 3", b" 4", b"\n{}"]


@given(CUTS)
async def test_a_large_item_is_one_refusal_and_its_neighbours_stay(cuts: list[int]):
    large, small = json.dumps("x" * 50), json.dumps("é,")
    array = f"[{small},{large},{small}]".encode()
    lines = "\n".join((small, large, small)).encode()
    for found in (await cut(array, cuts, limit=20), await cut(lines, cuts, Layout.LINES, limit=20)):
        assert [(item.line, item.data) for item in found] == [(1, small.encode()), (2, None), (3, small.encode())]


async def test_what_is_broken_is_an_item_of_its_own():
    for data, expected in (
        (b'[{"a": 1}, {"b"', [b'{"a": 1}', b' {"b"']),
        (b'[{"a": 1}] x', [b'{"a": 1}', b" x"]),
        (b"[1,,2]", [b"1", b"", b"2"]),
        (b"[}, 1]", [b"}", b" 1"]),
        (b"[1", [b"1"]),
        (b"[]", []),
        (b" ", []),
        (b"", []),
        (b"7", [b"7"]),
    ):
        assert [item.data for item in await cut(data, [])] == expected, data


def test_a_splitter_holds_no_more_than_its_limit():
    for splitter in (LineSplitter(1000), ArraySplitter(1000)):
        held = []
        for _ in range(100):
            assert list(splitter.feed(b"x" * 500)) == []
            held.append(len(splitter._buffer._data))
        assert max(held) <= 1000
        assert [item.data for item in splitter.close()] == [None]
