"""Rows of a snapshot and their Parquet file: the same rows are the same bytes."""

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from shared.contracts.verdicts import SegmentKind
from shared.trajectories.build import Example

SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("text", pa.string()),
        (
            "segments",
            pa.list_(
                pa.struct([("start", pa.int32()), ("end", pa.int32()), ("kind", pa.string()), ("trained", pa.bool_())])
            ),
        ),
        ("rounds", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class RowSegment:
    """Characters [start, end) of the response; `trained` is the S²R mask."""

    start: int
    end: int
    kind: SegmentKind
    trained: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One trajectory to train on."""

    question_id: str
    question: str
    text: str
    segments: tuple[RowSegment, ...]

    @property
    def rounds(self) -> int:
        """How many attempts it has."""
        return sum(segment.kind is SegmentKind.SOLVE for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Built:
    """What a recipe gave: rows, and the questions left out by reason."""

    rows: Sequence[Row]
    dropped: Counter[str]


def row_of(question_id: str, question: str, example: Example) -> Row:
    """An example of a question as a row."""
    segments = tuple(
        RowSegment(segment.start, segment.end, SegmentKind(segment.kind.value), bool(bit))
        for segment, bit in zip(example.trajectory.segments, example.segment_mask, strict=True)
    )
    return Row(question_id, question, example.trajectory.text, segments)


def to_parquet(rows: Sequence[Row]) -> bytes:
    """The Parquet file of these rows."""
    columns = {
        "question_id": [row.question_id for row in rows],
        "question": [row.question for row in rows],
        "text": [row.text for row in rows],
        "segments": [
            [
                {"start": segment.start, "end": segment.end, "kind": str(segment.kind), "trained": segment.trained}
                for segment in row.segments
            ]
            for row in rows
        ],
        "rounds": [row.rounds for row in rows],
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def from_parquet(data: bytes) -> list[Row]:
    """Inverse of `to_parquet`."""
    return [
        Row(
            line["question_id"],
            line["question"],
            line["text"],
            tuple(
                RowSegment(segment["start"], segment["end"], SegmentKind(segment["kind"]), segment["trained"])
                for segment in line["segments"]
            ),
        )
        for line in pq.read_table(io.BytesIO(data)).to_pylist()
    ]


def content_hash(data: bytes) -> str:
    """sha256 of the file."""
    return hashlib.sha256(data).hexdigest()
