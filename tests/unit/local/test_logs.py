"""Logs: lines are whole, files bounded, the stream readable."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.local.logs import MAX_LINE_BYTES, BoundedFile, LineSplitter, Prefixed, ProcessLog


@given(
    st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b"")), max_size=8),
    st.data(),
)
def test_lines_are_the_same_however_the_bytes_arrive(lines: list[bytes], data: st.DataObject):
    stream = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    splitter = LineSplitter()
    assert [line for piece in pieces if piece for line in splitter.lines(piece)] == [line + b"\n" for line in lines]
    assert splitter.lines(b"") == []


def test_the_last_line_without_an_end_is_not_lost():
    splitter = LineSplitter()
    assert splitter.lines(b"one\ntw") == [b"one\n"]
    assert splitter.lines(b"") == [b"tw\n"]


def test_a_line_without_end_is_cut():
    assert len(LineSplitter().lines(b"x" * (MAX_LINE_BYTES + 1))) == 1


def test_a_full_file_makes_room(tmp_path: Path):
    file = BoundedFile(tmp_path / "pool.log", max_bytes=100)
    for number in range(50):
        file.write(f"line {number:02d}\n".encode())
    file.close()
    assert (tmp_path / "pool.log").read_bytes().endswith(b"line 49\n")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 200


def test_each_line_names_its_process(tmp_path: Path):
    output = io.StringIO()
    log = ProcessLog("pool", tmp_path, Prefixed(["pool", "gateway"], output))
    assert log.feed(b"\x1b[32mready\x1b[0m\n\xff\n") == ["\x1b[32mready\x1b[0m", "\ufffd"]
    assert output.getvalue() == "pool    │ ready\npool    │ \ufffd\n"
    assert log.last_words(1) == "    \ufffd"
    log.close()


def test_a_full_disk_loses_lines_and_says_so_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    file = BoundedFile(tmp_path / "full.log", max_bytes=4)
    file.write(b"1234")
    tmp_path.joinpath("full.log.1").mkdir()  # so that no new file can begin
    for _ in range(3):
        file.write(b"lost")
    assert capfd.readouterr().err.count("cannot be written") == 1
    tmp_path.joinpath("full.log.1").rmdir()
    file.write(b"kept")
    assert (tmp_path / "full.log").read_bytes() == b"kept"
    file.close()
