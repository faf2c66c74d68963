"""The file of a snapshot: the same rows are the same bytes, however they came; memory does not grow with them."""

import gc
import hashlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pool.builders import parquet
from services.pool.builders.answers import AnsweredQuestion
from services.pool.builders.lots import lowest, numbered, redrawn
from services.pool.builders.rejection import RejectionBuilder
from services.pool.builders.rows import SCHEMA
from services.pool.builders.spool import Spool
from shared.contracts.snapshots import RejectionRecipe
from shared.errors import HeadwaterError
from tests.unit.pool.test_rejection import answer


def questions(count: int, characters: int = 8) -> Iterator[AnsweredQuestion]:
    for number in range(count):
        text = f"{number:09}".ljust(characters, "x")
        yield AnsweredQuestion(f"{number:09}", "Why?", None, "text", [answer(text), answer(text + "!")])


def written(folder: Path, count: int, at_once: int, characters: int = 8, name: str = "draft-1") -> parquet.Written:
    """A snapshot of one row a question, from its questions to its file."""
    builder = RejectionBuilder(RejectionRecipe(max_per_question=1), 3)
    with Spool(builder) as spool:
        page: list[AnsweredQuestion] = []
        for question in questions(count, characters):
            page.append(question)
            if len(page) == at_once:
                spool.add(page)
                page = []
        spool.add(page)
        choice = builder.choose(spool.kinds, spool.lots, 0)
        return parquet.write(str(folder), name, builder.schema, spool.chosen(choice.own))


@pytest.mark.parametrize("count", [0, 1, parquet.ROWS_PER_GROUP, 1300])
def test_the_same_rows_are_the_same_file(tmp_path: Path, count: int):
    first, second = written(tmp_path / "a", count, 97), written(tmp_path / "b", count, 200)
    content = Path(first.uri).read_bytes()
    assert hashlib.sha256(content).hexdigest() == first.content_hash == second.content_hash
    assert Path(second.uri).read_bytes() == content
    assert Path(first.uri).name == f"{first.content_hash}.parquet"
    assert (first.rows, dict(first.rounds), len(first.question_ids)) == (count, {1: count} if count else {}, count)
    file = pq.ParquetFile(first.uri)
    assert file.schema_arrow.equals(SCHEMA)
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert sizes == [parquet.ROWS_PER_GROUP] * (count // parquet.ROWS_PER_GROUP) + (
        [rest] if (rest := count % parquet.ROWS_PER_GROUP) else []
    )


def test_content_that_is_there_already_is_not_written_again_and_half_of_it_is(tmp_path: Path):
    first = written(tmp_path, 10, 5)
    before = Path(first.uri).stat()
    assert written(tmp_path, 10, 3, name="draft-2").uri == first.uri
    assert Path(first.uri).stat().st_ino == before.st_ino
    content = Path(first.uri).read_bytes()
    Path(first.uri).write_bytes(content[:50])
    assert written(tmp_path, 10, 3).uri == first.uri
    assert Path(first.uri).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [f"{first.content_hash}.parquet"]


def test_a_builder_that_fails_half_way_leaves_nothing(tmp_path: Path):
    def pieces() -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pylist([], schema=SCHEMA)
        raise OSError("the spool is gone")

    with pytest.raises(OSError, match="spool"):
        parquet.write(str(tmp_path), "draft-1", SCHEMA, pieces())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "draft-1-dead").touch()
    (tmp_path / "draft-2-alive").touch()
    parquet.clear_drafts(str(tmp_path), "draft-1-")
    assert [path.name for path in tmp_path.iterdir()] == ["draft-2-alive"]


def test_a_changed_file_is_noticed(tmp_path: Path):
    made = written(tmp_path, 600, 50)
    parquet.require_hash(made.uri, "sft", made.content_hash)
    content = bytearray(Path(made.uri).read_bytes())
    content[200] ^= 1
    Path(made.uri).write_bytes(content)
    with pytest.raises(HeadwaterError, match=r"'sft' at .* is damaged"):
        parquet.require_hash(made.uri, "sft", made.content_hash)
    with pytest.raises(OSError, match="CRC"), parquet.opened(made.uri, "sft") as file:
        list(parquet.batches(file))
    Path(made.uri).unlink()
    with pytest.raises(HeadwaterError, match="is not there"):
        parquet.require_hash(made.uri, "sft", made.content_hash)


def peak_bytes(folder: Path, count: int) -> int:
    """The most that was held at once, by Python and by Arrow."""
    gc.collect()
    proxy = pa.proxy_memory_pool(pa.default_memory_pool())
    previous = pa.default_memory_pool()
    pa.set_memory_pool(proxy)
    tracemalloc.start()
    try:
        written(folder, count, 50, characters=4000)
        return tracemalloc.get_traced_memory()[1] + int(proxy.max_memory())
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(previous)


def test_memory_does_not_grow_with_the_rows(tmp_path: Path):
    peak_bytes(tmp_path / "warm", 100)
    small, large = peak_bytes(tmp_path / "small", 1500), peak_bytes(tmp_path / "large", 6000)
    assert large - small < 4500 * 4000 / 10, (small, large)


LOTS = st.lists(st.integers(0, 2**64 - 1), max_size=30, unique=True)


@given(LOTS, st.integers(0, 40))
def test_the_lowest_lots_are_chosen(lots: list[int], count: int):
    array = np.array(lots, dtype=np.uint64)
    among = array % np.uint64(2) == 0
    chosen = lowest(among, array, count)
    assert array[chosen].tolist() == [lot for lot in lots if lot in sorted(lot for lot in lots if lot % 2 == 0)[:count]]


@given(LOTS)
def test_redrawn_lots_are_others_and_all_different(lots: list[int]):
    array = np.array(lots, dtype=np.uint64)
    again = redrawn(array, 1)
    assert len(np.unique(again)) == len(lots)
    assert redrawn(array, 1).tolist() == again.tolist()
    assert not lots or redrawn(array, 2).tolist() != again.tolist()


def test_further_choices_are_independent_of_the_first():
    lots = numbered(20_000, seed=5)
    everyone = np.ones(len(lots), dtype=np.bool_)
    first = lowest(everyone, lots, 10_000)
    both = first & lowest(everyone, redrawn(lots, 1), 10_000)
    assert 4_700 < both.sum() < 5_300
    assert numbered(10, 5).tolist() == numbered(20_000, 5)[:10].tolist() != numbered(10, 6).tolist()
