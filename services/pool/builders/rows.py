"""Rows of a snapshot: prompt and completion as messages, which TRL reads as they are, and the segments with their mask.

Made by the recipes, written by `parquet`, read by training (`services.training.sft`) and by whoever exports the snapshot.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from shared.contracts.verdicts import SegmentKind
from shared.trajectories.build import Example

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SEGMENT_FIELDS = (("start", pa.int32()), ("end", pa.int32()), ("kind", pa.string()), ("trained", pa.bool_()))
SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("prompt", MESSAGES),
        ("completion", MESSAGES),
        ("segments", pa.list_(pa.struct(SEGMENT_FIELDS))),
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

    def record(self) -> dict[str, Any]:
        """Its columns."""
        segments = [
            {"start": segment.start, "end": segment.end, "kind": str(segment.kind), "trained": segment.trained}
            for segment in self.segments
        ]
        return {
            "question_id": self.question_id,
            **conversation(self.question, self.text),
            "segments": segments,
            "rounds": self.rounds,
        }


def conversation(question: str, text: str) -> dict[str, Any]:
    """The columns `prompt` and `completion`."""
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": text}],
    }


def row_of(question_id: str, question: str, example: Example) -> Row:
    """An example of a question as a row."""
    segments = tuple(
        RowSegment(segment.start, segment.end, SegmentKind(segment.kind.value), bool(bit))
        for segment, bit in zip(example.trajectory.segments, example.segment_mask, strict=True)
    )
    return Row(question_id, question, example.trajectory.text, segments)


def read(batch: pa.RecordBatch | pa.Table) -> Iterator[Row]:
    """Inverse of `Row.record`."""
    for line in batch.to_pylist():
        yield Row(line["question_id"], _content(line["prompt"]), _content(line["completion"]), _segments(line))


def _content(messages: Sequence[dict[str, str]]) -> str:
    return messages[0]["content"]


def _segments(line: dict[str, Any]) -> tuple[RowSegment, ...]:
    return tuple(
        RowSegment(segment["start"], segment["end"], SegmentKind(segment["kind"]), segment["trained"])
        for segment in line["segments"]
    )
