"""The logs: one bounded file a process, and one stream for people with the process' name before each line."""

from __future__ import annotations

import contextlib
import re
import sys
from collections import deque
from pathlib import Path
from typing import BinaryIO, TextIO

MAX_FILE_BYTES = 20 << 20
MAX_LINE_BYTES = 64 << 10
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class BoundedFile:
    """Appends to `path`; a full file becomes `path.1`, so at most twice `max_bytes` are kept."""

    def __init__(self, path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._size_bytes = self._file.tell()
        self._is_written = True

    def write(self, line: bytes) -> None:
        """Append one line. A full disk loses the line, never the process that spoke it."""
        try:
            if self._size_bytes + len(line) > self._max_bytes:
                self._begin_anew()
            self._size_bytes += self._file.write(line)
            self._is_written = True
        except OSError as error:
            if self._is_written:
                self._is_written = False
                with contextlib.suppress(OSError):  # it may go to the same disk
                    print(f"{self.path} cannot be written: {error.strerror}", file=sys.stderr)  # noqa: T201

    def _begin_anew(self) -> None:
        if self.path.exists():
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        fresh = self.path.open("ab", buffering=0)
        self._file.close()
        self._file, self._size_bytes = fresh, 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class LineSplitter:
    """Turns chunks of bytes into lines; a line without an end is cut at MAX_LINE_BYTES."""

    def __init__(self) -> None:
        self._rest = b""

    def lines(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes, with their ends. An empty chunk is the end of the stream."""
        self._rest += chunk
        *whole, self._rest = self._rest.splitlines(keepends=True) or [b""]
        if self._rest.endswith(b"\n") or len(self._rest) > MAX_LINE_BYTES or (not chunk and self._rest):
            whole.append(self._rest.rstrip(b"\r\n") + b"\n")
            self._rest = b""
        return [line.rstrip(b"\r\n") + b"\n" for line in whole]


class Prefixed:
    """The one readable stream: `name │ line`, a colour a name on a terminal."""

    def __init__(self, names: list[str], output: TextIO | None) -> None:
        self._output = output
        self._width = max(map(len, names), default=0)
        self._colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
        self._coloured = output is not None and output.isatty()

    def write(self, name: str, line: str) -> None:
        """One line of one process; a closed terminal is no reason to stop."""
        if self._output is None:
            return
        label = f"{name:<{self._width}} │"
        if self._coloured:
            label = f"\x1b[{self._colours.get(name, 37)}m{label}\x1b[0m"
        else:
            line = _ESCAPES.sub("", line)
        try:
            print(label, line.rstrip(), file=self._output, flush=True)
        except OSError:
            self._output = None


class ProcessLog:
    """The log of one process: into its file, into the stream, and the last lines for an error."""

    def __init__(self, name: str, directory: Path, stream: Prefixed) -> None:
        self.name = name
        self.tail: deque[str] = deque(maxlen=30)
        self._file = BoundedFile(directory / f"{name}.log")
        self._stream = stream
        self._splitter = LineSplitter()

    @property
    def path(self) -> Path:
        """Where the whole log is."""
        return self._file.path

    def feed(self, chunk: bytes) -> list[str]:
        """Take what the process said; returns its complete lines."""
        lines = self._splitter.lines(chunk)
        texts = [line.decode(errors="replace").rstrip("\n") for line in lines]
        for line, text in zip(lines, texts, strict=True):
            self._file.write(line)
            self._stream.write(self.name, text)
            self.tail.append(text)
        return texts

    def last_words(self, count: int = 8) -> str:
        """The last lines, indented."""
        return "\n".join(f"    {_ESCAPES.sub('', line)}" for line in list(self.tail)[-count:])

    def close(self) -> None:
        """Close the file."""
        self._file.close()
