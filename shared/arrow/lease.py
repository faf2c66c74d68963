"""A leased batch: written by the pool, read by the trainer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pyarrow as pa

from shared.arrow.responses import (
    RESPONSES,
    UUID_TYPE,
    binary_column,
    read_binary,
    read_responses,
    read_uuids,
    response_column,
    uuid_column,
)
from shared.arrow.stream import bad_arrow, whole
from shared.contracts.batches import BatchLease
from shared.contracts.questions import Question
from shared.packed import PackedGroup

# A binary column holds less than 2 GiB; the largest groups there can be are 32 MiB a column.
GROUPS_A_RECORD_BATCH = 32
SCHEMA = pa.schema(
    [
        pa.field("id", UUID_TYPE, nullable=False),
        pa.field("order_id", UUID_TYPE, nullable=False),
        pa.field("policy_id", UUID_TYPE, nullable=False),
        pa.field("policy_version", pa.int64(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("created_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("tokens_expired", pa.bool_(), nullable=False),
        pa.field("prompt_token_ids", pa.binary(), nullable=False),
        pa.field("responses", RESPONSES, nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class PackedLease:
    """A leased batch, or `batch_id` None when too few groups wait: `shared.contracts.batches.BatchLease`, packed."""

    batch_id: UUID | None
    groups: Sequence[PackedGroup]
    waiting: int
    dropped_stale: int = 0

    def contract(self) -> BatchLease:
        """The JSON form."""
        return BatchLease.model_construct(
            batch_id=self.batch_id,
            groups=tuple(group.contract() for group in self.groups),
            waiting=self.waiting,
            dropped_stale=self.dropped_stale,
        )


def write(lease: PackedLease) -> memoryview:
    """The lease as a whole stream."""
    facts = {"waiting": str(lease.waiting), "dropped_stale": str(lease.dropped_stale)}
    schema = SCHEMA.with_metadata(facts if lease.batch_id is None else facts | {"batch_id": str(lease.batch_id)})
    starts = range(0, len(lease.groups), GROUPS_A_RECORD_BATCH)
    return whole(schema, [_record_batch(lease.groups[at : at + GROUPS_A_RECORD_BATCH], schema) for at in starts])


def _record_batch(groups: Sequence[PackedGroup], schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        uuid_column(group.id for group in groups),
        uuid_column(group.order_id for group in groups),
        uuid_column(group.policy_id for group in groups),
        pa.array([group.policy_version for group in groups], pa.int64()),
        pa.array([group.question.model_dump_json() for group in groups], pa.string()),
        pa.array([group.created_at for group in groups], pa.timestamp("us", "UTC")),
        pa.array([group.tokens_expired for group in groups], pa.bool_()),
        binary_column([group.prompt_token_ids for group in groups]),
        response_column([group.responses for group in groups]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def read(body: bytes) -> PackedLease:
    """A stream that the pool wrote; its token arrays are views into `body`. Raises: HeadwaterError `invalid_arrow`."""
    try:
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            facts = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
            groups = [group for batch in reader for group in _groups(batch)]
        batch_id = UUID(facts["batch_id"]) if "batch_id" in facts else None
        return PackedLease(batch_id, groups, int(facts["waiting"]), int(facts["dropped_stale"]))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise bad_arrow(f"the pool's answer cannot be read ({error})", status=502) from error


def _groups(batch: Any) -> list[PackedGroup]:
    columns = {name: batch.column(number) for number, name in enumerate(batch.schema.names)}

    def refuse(group: int, response: int, why: str) -> ValueError:
        return ValueError(f"response {response} of group {group}: {why}")

    rows = zip(
        read_uuids(columns["id"]),
        read_uuids(columns["order_id"]),
        map(Question.model_validate_json, columns["question"].to_pylist()),
        read_uuids(columns["policy_id"]),
        columns["policy_version"].to_pylist(),
        read_binary(columns["prompt_token_ids"]),
        read_responses(columns["responses"], refuse),
        columns["created_at"].to_pylist(),
        columns["tokens_expired"].to_pylist(),
        strict=True,
    )
    return [PackedGroup(*row) for row in rows]
