"""Arrow streams: the same questions as lines of JSON, and nothing of a damaged or hostile one."""

import json
from collections.abc import AsyncIterator
from contextlib import suppress

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.pool.service import arrow, blocks, items
from services.pool.service.bodies import BrokenStreamError
from services.pool.service.lines import Item
from shared.contracts.questions import QuestionIn, Refusal, RefusalReason
from shared.errors import HeadwaterError


def written(table: pa.Table, rows: int | None = None, **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return bytes(sink.getvalue())


async def stream(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def judged(data: bytes, size: int = 1000) -> list[blocks.Judged]:
    return [one async for block in arrow.blocks(stream(data, size)) for one in block.judge()]


TEXT = st.text(max_size=5) | st.sampled_from(["1", " ", "a\0b", "x" * 201])
ROWS = st.lists(
    st.fixed_dictionaries(
        {"question": TEXT, "answer": TEXT},
        optional={
            "kind": st.sampled_from(["numeric", "exact", "?"]),
            "source": TEXT,
            "solution": TEXT,
            "split": st.just("eval"),
        },
    ),
    max_size=8,
)


@settings(max_examples=60)
@given(ROWS, st.integers(1, 3), st.integers(1, 300), st.booleans())
async def test_rows_are_judged_like_lines(rows: list[dict[str, str]], at_once: int, size: int, large: bool):
    kind = pa.large_string() if large else pa.string()
    names = sorted({"question", "answer", *(name for row in rows for name in row)})
    columns = [pa.array([row.get(name) for row in rows], kind) for name in names]
    if "kind" in names:
        columns[names.index("kind")] = columns[names.index("kind")].dictionary_encode()
    found = await judged(written(pa.table(columns, names=names), at_once), size)
    lines = [json.dumps({name: row[name] for name in names if name in row}).encode() for row in rows]
    expected = [items.read(Item(line, data)) for line, data in enumerate(lines, 1)]
    assert [one.line for one in found] == list(range(1, len(rows) + 1))
    assert [one.outcome for one in found] == expected


def table(count: int = 10, **columns: pa.Array) -> pa.Table:
    texts = {"question": [f"What is {at}+1?" for at in range(count)], "answer": [str(at + 1) for at in range(count)]}
    return pa.table({**texts, **columns})


async def test_any_cut_is_said_and_what_came_before_is_read():
    data = written(table(10), 5)
    for length in range(len(data)):
        with pytest.raises(BrokenStreamError) as error:
            await judged(data[:length], 64)
        assert error.value.code == "arrow_truncated"
    rows = arrow.blocks(stream(data[:-20]))
    assert [one.line for one in (await anext(rows)).judge()] == [1, 2, 3, 4, 5]
    with pytest.raises(BrokenStreamError):
        await anext(rows)


@settings(max_examples=300)
@given(st.data())
async def test_flipped_bytes_never_do_more_than_be_refused(data: st.DataObject):
    body = bytearray(written(table(3, source=pa.array(["a", "b", "a"]).dictionary_encode())))
    for at in data.draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=4)):
        body[at] = data.draw(st.integers(0, 255))
    found = []
    with suppress(HeadwaterError):
        found = await judged(bytes(body))
    assert all(isinstance(one.outcome, QuestionIn | Refusal) for one in found)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (pa.table({"question": ["a"]}), "has no column 'answer'"),
        (pa.table({"question": ["a"], "answer": [1]}), "has the column 'answer' of type int64; write strings"),
        (pa.table({"question": ["a"], "answer": ["1"], "colour": ["red"]}), "an unknown column 'colour'"),
        (pa.table([["a"], ["1"], ["b"]], names=["question", "answer", "question"]), "the column 'question' twice"),
    ],
)
async def test_another_schema_is_refused_by_column(content: pa.Table, sentence: str):
    with pytest.raises(HeadwaterError, match=sentence) as error:
        await judged(written(content))
    assert (error.value.code, error.value.status) == ("arrow_schema", 422)


async def test_compressed_buffers_are_not_unpacked():
    with pytest.raises(BrokenStreamError, match="compressed buffers") as error:
        await judged(written(table(100), compression="zstd"))
    assert error.value.status == 415


async def test_an_arrow_file_and_bytes_behind_the_end_are_named():
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table().schema) as writer:
        writer.write_table(table())
    with pytest.raises(BrokenStreamError, match="an Arrow file is not a stream"):
        await judged(bytes(sink.getvalue()))
    with pytest.raises(BrokenStreamError, match="bytes behind its end"):
        await judged(written(table()) * 2)


async def test_text_that_is_not_utf8_and_a_large_row_are_refused_alone():
    texts = [b"good", b"caf\xe9", b"x" * 1_500_000, b"last"]
    column = pa.array(texts, pa.binary()).view(pa.string())
    found = await judged(written(pa.table({"question": column, "answer": ["1"] * 4})))
    outcomes = [one.outcome for one in found]
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, Refusal)] == [
        RefusalReason.INVALID_UTF8,
        RefusalReason.TOO_LARGE,
    ]
    assert [one.line for one in found if isinstance(one.outcome, QuestionIn)] == [1, 4]


async def test_a_large_batch_is_read_from_a_file_in_pieces(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arrow, "MEMORY_BYTES", 100)
    many = table(5000)
    found = [block async for block in arrow.blocks(stream(written(many), 1 << 16))]
    assert [len(block) for block in found] == [1000] * 5
    questions = [one.outcome for block in found for one in block.judge()]
    assert [question.question for question in questions if isinstance(question, QuestionIn)] == many[
        "question"
    ].to_pylist()


async def test_a_long_word_in_a_dictionary_is_not_multiplied():
    column = pa.array(["x" * 5000] * 10).dictionary_encode()
    with pytest.raises(BrokenStreamError, match="write that column as plain strings"):
        await judged(written(table(10, source=column)))
