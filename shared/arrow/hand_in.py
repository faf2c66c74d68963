"""Groups that are handed in: written by sampling workers, read by the pool."""

from collections.abc import Sequence
from typing import Any

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
from shared.errors import HeadwaterError
from shared.packed import BYTES_PER_TOKEN, Buffer, PackedGroupIn

MAX_GROUPS = 1024
MAX_RESPONSES = 256
SCHEMA = pa.schema(
    [
        pa.field("assignment_id", UUID_TYPE, nullable=False),
        pa.field("lease_token", UUID_TYPE, nullable=False),
        pa.field("policy_id", UUID_TYPE, nullable=False),
        pa.field("prompt_token_ids", pa.binary(), nullable=False),
        pa.field("responses", RESPONSES, nullable=False),
    ]
)


def record_batch(groups: Sequence[PackedGroupIn]) -> pa.RecordBatch:
    """Groups as one record batch."""
    columns = [
        uuid_column(group.assignment_id for group in groups),
        uuid_column(group.lease_token for group in groups),
        uuid_column(group.policy_id for group in groups),
        binary_column([group.prompt_token_ids for group in groups]),
        response_column([group.responses for group in groups]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def write(groups: Sequence[PackedGroupIn]) -> memoryview:
    """Groups as a whole stream."""
    return whole(SCHEMA, [record_batch(groups)])


def read(batch: pa.RecordBatch) -> list[PackedGroupIn]:
    """The groups of a checked record batch. Raises: HeadwaterError `invalid_arrow` that names group, response and field."""
    if batch.num_rows > MAX_GROUPS:
        raise bad_arrow(f"a record batch has {batch.num_rows:,} groups; send at most {MAX_GROUPS:,} in one")
    assignment_ids, lease_tokens, policy_ids = (read_uuids(batch.column(number)) for number in range(3))

    def refuse(group: int, response: int, why: str) -> HeadwaterError:
        return _refused(assignment_ids[group], f"response {response} is not valid: {' '.join(why.split())[:300]}")

    responses = read_responses(batch.column(4), refuse)
    prompts = read_binary(batch.column(3))
    rows = zip(assignment_ids, lease_tokens, policy_ids, prompts, responses, strict=True)
    groups = [PackedGroupIn(*row) for row in rows]
    for group in groups:
        _check(group)
    return groups


def _check(group: PackedGroupIn) -> None:
    if not 1 <= len(group.responses) <= MAX_RESPONSES:
        raise _refused(group.assignment_id, f"it has {len(group.responses)} responses, not 1 to {MAX_RESPONSES}")
    if _is_broken(group.prompt_token_ids):
        raise _refused(group.assignment_id, "prompt_token_ids does not hold a whole number of 4-byte values")
    for position, response in enumerate(group.responses):
        for name in ("token_ids", "logprobs", "token_ends"):
            if _is_broken(getattr(response, name)):
                message = f"{name} of response {position} does not hold a whole number of 4-byte values"
                raise _refused(group.assignment_id, message)


def _is_broken(buffer: Buffer) -> bool:
    return len(buffer) % BYTES_PER_TOKEN != 0


def _refused(assignment_id: Any, why: str) -> HeadwaterError:
    return bad_arrow(f"in the group of assignment {assignment_id}, {why}")
