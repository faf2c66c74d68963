"""Groups that are handed in as Arrow: what is written is read, however the body is cut; what is not one is refused with a sentence."""

import struct
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.arrow import hand_in
from shared.arrow.stream import MAX_MESSAGE_BYTES, StreamReader
from shared.contracts.generation import FinishReason
from shared.contracts.verdicts import Verdict, VerdictOutcome
from shared.errors import HeadwaterError
from shared.packed import PackedGroupIn, PackedResponse, float32s, int32s, joined, pack_group_in, split
from tests.unit.shared.arrow.groups import GROUPS_IN

ANY = UUID(int=1)
RESPONSE = PackedResponse(
    text="1",
    finish_reason=FinishReason.STOP,
    token_ids=struct.pack("<2i", 5, 6),
    logprobs=struct.pack("<2f", -0.5, -1.5),
    token_ends=struct.pack("<2i", 1, 1),
    judgement=Verdict(outcome=VerdictOutcome.CORRECT, verifier="test@1"),
)
GROUP = PackedGroupIn(ANY, ANY, ANY, struct.pack("<i", 1), (RESPONSE,))


def read(body: bytes, cut: int = 1 << 30) -> list[PackedGroupIn]:
    reader = StreamReader(hand_in.SCHEMA)
    groups: list[PackedGroupIn] = []
    for start in range(0, len(body), cut):
        for batch in reader.feed(body[start : start + cut]):
            groups += hand_in.read(batch)
    reader.close()
    return groups


def stream(*batches: pa.RecordBatch, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def refusal(body: bytes) -> HeadwaterError:
    with pytest.raises(HeadwaterError) as refused:
        read(body)
    assert refused.value.status in (413, 422)
    return refused.value


def changed(name: str, column: Any) -> bytes:
    """A stream whose column `name` is another one."""
    batch = hand_in.record_batch([GROUP])
    columns = {field.name: batch.column(number) for number, field in enumerate(batch.schema)} | {name: column}
    return stream(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)))


def with_response(**fields: Any) -> bytes:
    """A stream whose one response has other arrays."""
    structs = hand_in.record_batch([GROUP]).column(4).flatten()
    arrays = dict(zip((field.name for field in structs.type), structs.flatten(), strict=True)) | fields
    return changed(
        "responses", pa.ListArray.from_arrays([0, 1], pa.StructArray.from_arrays(list(arrays.values()), list(arrays)))
    )


@given(st.lists(GROUPS_IN, max_size=4), st.integers(1, 3000))
def test_what_is_written_is_read_however_the_body_is_cut(groups: list[PackedGroupIn], cut: int) -> None:
    found = read(bytes(hand_in.write(groups)), cut)
    assert [group.contract().model_dump_json() for group in found] == [
        group.contract().model_dump_json() for group in groups
    ]


@given(GROUPS_IN)
def test_json_and_arrow_become_the_same(group: PackedGroupIn) -> None:
    through_json = pack_group_in(group.contract())
    [through_arrow] = read(bytes(hand_in.write([group])))
    for one, other in zip(through_json.responses, through_arrow.responses, strict=True):
        assert int32s(one.token_ids).tolist() == int32s(other.token_ids).tolist()
        assert np.array_equal(float32s(one.logprobs), float32s(other.logprobs), equal_nan=True)
        assert (one.text, one.verdict) == (other.text, other.verdict)


def test_several_batches_and_nullable_fields_are_read() -> None:
    batch = hand_in.record_batch([GROUP])
    loose = pa.RecordBatch.from_arrays(batch.columns, names=batch.schema.names)
    assert len(read(stream(loose, loose, loose))) == 3
    assert read(stream(batch.slice(0, 0))) == []


def test_token_arrays_are_views_of_the_body() -> None:
    [group] = read(bytes(hand_in.write([GROUP])))
    assert isinstance(group.responses[0].token_ids, memoryview)
    assert int32s(group.responses[0].token_ids).base is not None


def test_a_stream_that_was_cut_off_anywhere_is_noticed() -> None:
    batch = hand_in.record_batch([GROUP])
    whole = stream(batch, batch)
    assert len(read(whole)) == 2
    for length in range(len(whole)):
        assert refusal(whole[:length]).code == "invalid_arrow"
    assert "bytes after" in refusal(whole + b"!").message


def test_damaged_bytes_are_refused_or_read_but_never_worse() -> None:
    whole = stream(hand_in.record_batch([GROUP]))
    statuses = set()
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        try:
            read(bytes(damaged))
        except HeadwaterError as refused:
            statuses.add(refused.status)
    assert statuses == {413, 422}


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"{}" * 20, "invalid_arrow", "continuation mark"),
        (changed("policy_id", pa.array(["x"])), "wrong_schema", "column policy_id has type string"),
        (changed("other", pa.array([1])), "wrong_schema", "responses, other"),
        (changed("policy_id", pa.array([None], pa.binary(16))), "null_value", "policy_id has a null"),
        (with_response(logprobs=pa.array([[-0.5, -1.5]], pa.list_(pa.float64()))), "wrong_schema", "column responses"),
        (with_response(logprobs=pa.array([None], pa.binary())), "null_value", "responses.logprobs has a null"),
        (with_response(verdict=pa.array(["{}"])), "invalid_arrow", "response 0 is not valid"),
        (with_response(finish_reason=pa.array(["tired"])), "invalid_arrow", "'tired'"),
        (with_response(token_ids=pa.array([b"123"])), "invalid_arrow", "token_ids of response 0"),
        (changed("responses", pa.array([[]], hand_in.SCHEMA.field("responses").type)), "invalid_arrow", "0 responses"),
        (stream(hand_in.record_batch([GROUP]), compression="zstd"), "invalid_arrow", "compressed"),
    ],
)
def test_what_is_no_hand_in_is_refused_with_a_sentence(body: bytes, code: str, words: str) -> None:
    refused = refusal(body)
    assert (refused.code, words in refused.message) == (code, True), refused.message


def test_a_header_that_announces_too_much_is_refused_before_its_body_comes() -> None:
    whole = bytearray(stream(hand_in.record_batch([GROUP])))
    schema_bytes = 8 + struct.unpack_from("<I", whole, 4)[0]
    header_bytes = struct.unpack_from("<I", whole, schema_bytes + 4)[0]
    body_bytes = len(whole) - 8 - schema_bytes - 8 - header_bytes
    header = bytes(whole[: schema_bytes + 8 + header_bytes])
    assert header.count(struct.pack("<q", body_bytes)) == 1
    lying = header.replace(struct.pack("<q", body_bytes), struct.pack("<q", MAX_MESSAGE_BYTES + 8))
    assert refusal(lying).code == "arrow_too_large"
    assert refusal(struct.pack("<II", 0xFFFFFFFF, 1 << 31)).code == "arrow_too_large"


@given(st.lists(st.integers(0, 5), max_size=6))
def test_arrays_are_joined_and_split_again(lengths: list[int]) -> None:
    parts = [bytes([number % 256]) * 4 * length for number, length in enumerate(lengths)]
    assert [bytes(part) for part in split(joined(parts), lengths)] == parts
    with pytest.raises(ValueError, match="do not hold"):
        split(joined(parts), [*lengths, 1])
