"""The column `responses` of both bodies: built from packed responses, and read back without a copy."""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from shared.contracts.generation import FinishReason
from shared.packed import Buffer, PackedResponse

UUID_TYPE = pa.binary(16)
_STRUCT = pa.struct(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            ("text", pa.string()),
            ("finish_reason", pa.string()),
            ("token_ids", pa.binary()),
            ("logprobs", pa.binary()),
            ("token_ends", pa.binary()),
            ("verdict", pa.string()),
        )
    ]
)
RESPONSES = pa.list_(pa.field("item", _STRUCT, nullable=False))


def response_column(groups: Sequence[Sequence[PackedResponse]]) -> pa.Array:
    """The responses of every group."""
    offsets = np.fromiter(accumulate((len(group) for group in groups), initial=0), np.int32, len(groups) + 1)
    flat = [response for group in groups for response in group]
    arrays = [
        pa.array([response.text for response in flat], pa.string()),
        pa.array([response.finish_reason.value for response in flat], pa.string()),
        binary_column([response.token_ids for response in flat]),
        binary_column([response.logprobs for response in flat]),
        binary_column([response.token_ends for response in flat]),
        pa.array([response.verdict_json for response in flat], pa.string()),
    ]
    fields = list(_STRUCT)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.StructArray.from_arrays(arrays, fields=fields), RESPONSES)


def read_responses(column: Any, refuse: Callable[[int, int, str], Exception]) -> list[tuple[PackedResponse, ...]]:
    """The responses of every group; their token arrays are views into the column.

    Raises: `refuse(group, response, why)` for a finish reason or a verdict that is none.
    """
    structs = column.flatten()
    text, finish_reason, *arrays, verdict = structs.flatten()
    lengths = column.value_lengths().to_pylist()
    rows = zip(text.to_pylist(), finish_reason.to_pylist(), *map(read_binary, arrays), verdict.to_pylist(), strict=True)
    groups: list[tuple[PackedResponse, ...]] = []
    for group, length in enumerate(lengths):
        responses: list[PackedResponse] = []
        for position in range(length):
            words, reason, token_ids, logprobs, token_ends, judged = next(rows)
            try:
                response = PackedResponse(words, FinishReason(reason), token_ids, logprobs, token_ends, judged)
                response.verdict  # noqa: B018 (whether it is one)
            except ValueError as error:
                raise refuse(group, position, str(error)) from error
            responses.append(response)
        groups.append(tuple(responses))
    return groups


def binary_column(buffers: Sequence[Buffer]) -> pa.Array:
    """A binary column out of buffers, with one copy of their bytes."""
    offsets = np.fromiter(accumulate(map(len, buffers), initial=0), np.int32, len(buffers) + 1)
    return pa.BinaryArray.from_buffers(
        pa.binary(), len(buffers), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(buffers))]
    )


def read_binary(column: Any) -> list[memoryview]:
    """Views of the values of a binary column."""
    _, offset_buffer, data = column.buffers()
    if offset_buffer is None or data is None:
        return [memoryview(b"")] * len(column)
    offsets = np.frombuffer(offset_buffer, np.int32, len(column) + 1, column.offset * 4).tolist()
    view = memoryview(data)
    return [view[start:end] for start, end in pairwise(offsets)]


def uuid_column(ids: Iterable[UUID]) -> pa.Array:
    """A column of UUIDs."""
    return pa.array([one.bytes for one in ids], UUID_TYPE)


def read_uuids(column: Any) -> list[UUID]:
    """The UUIDs of a column."""
    return [UUID(bytes=one) for one in column.to_pylist()]
