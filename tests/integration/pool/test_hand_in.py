"""Groups come in as Arrow or JSON, gzip or not, and go out as they came; what is broken leaves nothing behind."""

import gzip
import json
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

from shared import arrow
from shared.arrow import hand_in
from shared.contracts.base import pack_float32, pack_int32
from shared.contracts.orders import GroupIn
from shared.packed import PackedGroupIn, pack_group_in
from tests.integration.pool.client import PoolClient, group

pytestmark = pytest.mark.integration


def packed(assignment: Any, outcome: str = "correct") -> PackedGroupIn:
    return pack_group_in(GroupIn.model_validate(group(assignment, outcome)))


def stream(*batches: list[PackedGroupIn]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, hand_in.SCHEMA) as writer:
        for batch in batches:
            writer.write_batch(hand_in.record_batch(batch))
    body: bytes = sink.getvalue().to_pybytes()
    return body


def cuts(body: bytes) -> list[int]:
    """In the middle of the schema, of the first record batch, of the last one, and of what leads from one to the next."""
    return [10, len(body) // 8, len(body) // 3, len(body) // 2, 2 * len(body) // 3, len(body) - 100]


async def post(
    pool: PoolClient, body: Any, status: int = 200, kind: str = arrow.MEDIA_TYPE, encoding: str = "identity"
):
    headers = {"Content-Type": kind, "Content-Encoding": encoding}
    return await pool.ask("POST", "/v1/groups", status, content=body, headers=headers)


async def stored(pool: PoolClient) -> int:
    [(count,)] = await pool.execute("SELECT count(*) FROM pool.group_tokens")
    return int(count)


async def test_arrow_and_json_gzip_or_not_are_stored_alike(pool: PoolClient):
    await pool.submit(4)
    await pool.order()
    assignments = await pool.claim()
    bodies = [
        (stream([packed(assignments[0])]), arrow.MEDIA_TYPE, "identity"),
        (gzip.compress(stream([packed(assignments[1])])), arrow.MEDIA_TYPE, "gzip"),
        (json.dumps({"groups": [group(assignments[2])]}), "application/json", "identity"),
        (gzip.compress(json.dumps({"groups": [group(assignments[3])]}).encode()), "application/json", "gzip"),
    ]
    for assignment, (body, kind, encoding) in zip(assignments, bodies, strict=True):
        [receipt] = (await post(pool, body, kind=kind, encoding=encoding))["receipts"]
        assert (receipt["assignment_id"], receipt["status"]) == (assignment["id"], "stored")
        back = await pool.ask("GET", f"/v1/groups/{receipt['group_id']}")
        sent = GroupIn.model_validate(group(assignment)).model_dump(mode="json")
        assert (back["prompt_token_ids"], back["responses"]) == (sent["prompt_token_ids"], sent["responses"])
        assert back["tokens_expired"] is False
    [receipt] = (await post(pool, bodies[0][0]))["receipts"]
    assert receipt["status"] == "duplicate"
    rows = await pool.execute(
        "SELECT tokens, (SELECT sum(tokens) FROM pool.responses WHERE group_id = g.id) FROM pool.groups g"
    )
    assert all(tokens == total > 0 for tokens, total in rows)


async def test_a_stream_of_several_batches_is_one_request(pool: PoolClient):
    await pool.submit(3)
    await pool.order()
    first, second, third = await pool.claim()
    unknown = third | {"id": str(uuid4())}
    batches = [packed(first)], [packed(second), packed(first), packed(unknown)], [packed(third)]
    receipts = (await post(pool, stream(*batches)))["receipts"]
    assert [receipt["status"] for receipt in receipts] == ["stored", "stored", "duplicate", "refused", "stored"]
    assert (await pool.pools())["groups"] == await stored(pool) == 3


async def test_what_is_broken_is_refused_and_nothing_of_it_is_stored(pool: PoolClient):
    await pool.submit(2)
    await pool.order()
    first, second = await pool.claim()
    whole = stream([packed(first)], [packed(second)])
    bomb = gzip.compress(whole[:-8] + bytes(300_000_000), 1)
    zeros = gzip.compress(bytes(100_000_000), 1)
    for body, status, encoding, code in (
        (whole[:-8], 422, "identity", "invalid_arrow"),
        (whole[:-9], 422, "identity", "invalid_arrow"),
        (whole + b"more", 422, "identity", "invalid_arrow"),
        (b"", 422, "identity", "invalid_arrow"),
        (gzip.compress(whole)[:-9], 422, "gzip", "invalid_gzip"),
        (gzip.compress(whole) + b"more", 422, "gzip", "invalid_gzip"),
        (whole, 422, "gzip", "invalid_gzip"),
        (bomb, 422, "gzip", "invalid_arrow"),
        (whole, 415, "br", "unsupported_encoding"),
    ):
        error = (await post(pool, body, status, encoding=encoding))["error"]
        assert error["code"] == code, error
        assert error["message"].endswith("."), error
    for cut in cuts(whole):
        assert (await post(pool, whole[:cut], 422))["error"]["code"] == "invalid_arrow"
    for schema in (
        pa.schema([*hand_in.SCHEMA, pa.field("more", pa.int32())]),
        pa.schema(list(hand_in.SCHEMA)[:-1]),
        pa.schema(
            [field if field.name != "policy_id" else pa.field("policy_id", pa.string()) for field in hand_in.SCHEMA]
        ),
    ):
        with pa.ipc.new_stream(sink := pa.BufferOutputStream(), schema):
            pass
        error = (await post(pool, sink.getvalue().to_pybytes(), 422))["error"]
        assert (error["code"], "column" in error["message"]) == ("wrong_schema", True)
    assert (await post(pool, zeros, 413, "application/json", "gzip"))["error"]["code"] == "too_large"
    assert (await post(pool, b"{", 422, "application/json"))["error"]["code"] == "invalid_request"
    assert (await post(pool, b"\xff", 422, "application/json"))["error"]["code"] == "invalid_request"
    assert (await post(pool, whole, 415, "text/csv"))["error"]["code"] == "unsupported_type"
    assert await stored(pool) == 0
    assert await pool.execute("SELECT 1 FROM pool.groups UNION ALL SELECT 1 FROM pool.responses") == []
    receipts = (await post(pool, whole))["receipts"]
    assert [receipt["status"] for receipt in receipts] == ["stored", "stored"]


async def test_hostile_text_in_a_response_is_kept_as_it_is_or_refused(pool: PoolClient):
    texts = [
        "\u202eright to left",
        "a" + "\u0301\u0323" * 50_000,
        "x" * 1_000_000,
        "\ufeff?",
        "\x1b[2J",
        "NUL \0!",
        "\U0010ffff",
    ]
    await pool.submit(len(texts) + 1)
    await pool.order(k=1)
    *assignments, last = await pool.claim()
    broken = group(last)
    broken["responses"][0]["text"] += "\ud800"
    as_json = json.dumps({"groups": [broken]})
    assert (await post(pool, as_json, 422, "application/json"))["error"]["code"] == "invalid_request"
    made = [group(assignment) for assignment in assignments]
    for one, text in zip(made, texts, strict=True):
        response = one["responses"][0]
        response["text"], response["verdict"] = text, {"outcome": "incorrect", "answer": text, "verifier": "test@1"}
        response |= {
            "token_ids": pack_int32([1]),
            "logprobs": pack_float32([-1.0]),
            "token_ends": pack_int32([len(text)]),
        }
    half = len(made) // 2
    await post(pool, json.dumps({"groups": made[:half]}), kind="application/json")
    await post(pool, stream([pack_group_in(GroupIn.model_validate(one)) for one in made[half:]]))
    kept = {row.text for row in await pool.execute("SELECT text FROM pool.responses WHERE text = answer")}
    assert kept == {text.replace("\0", "\ufffd") for text in texts}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
async def test_log_probabilities_that_are_no_numbers_are_refused_by_response_and_token(pool: PoolClient, value: float):
    await pool.submit(3)
    await pool.order()
    good, *bad = await pool.claim()
    broken = [group(assignment) for assignment in bad]
    for one in broken:
        response = one["responses"][1]
        response["logprobs"] = pack_float32([-0.5] * 3 + [value] * (len(response["text"]) - 3))
    as_json = {"groups": [broken[0], group(good)]}
    as_arrow = stream([pack_group_in(GroupIn.model_validate(broken[1]))])
    receipts = (await post(pool, json.dumps(as_json), kind="application/json"))["receipts"]
    receipts += (await post(pool, as_arrow))["receipts"]
    assert [receipt["status"] for receipt in receipts] == ["refused", "stored", "refused"]
    for assignment, receipt in zip(bad, receipts[::2], strict=True):
        why = f"response 1 has the log-probability {value} of token 3, which is no finite number"
        assert receipt["message"] == f"The group of assignment {assignment['id']} is refused: {why}."
    assert await stored(pool) == 1
    again = await pool.hand_in(*map(group, bad))
    assert [receipt["status"] for receipt in again] == ["stored", "stored"]


async def test_the_last_of_several_probes_in_one_hand_in_decides(pool: PoolClient):
    await pool.submit(1)
    await pool.order()
    await pool.answer_all(lambda _, at: "correct" if at < 2 else "incorrect")
    before = await pool.pools()
    orders = [(await pool.order(key=key, purpose="probe"))["id"] for key in ("easy", "as before")]
    easy, same = sorted(await pool.claim(), key=lambda one: orders.index(one["order_id"]))
    await pool.hand_in(group(easy), group(same, lambda _, at: "correct" if at < 2 else "incorrect"))
    after = await pool.pools()
    assert [after[name] for name in ("hard", "trivial")] == [before[name] for name in ("hard", "trivial")] == [1, 0]
    [(rate,)] = await pool.execute("SELECT pass_rate FROM pool.questions")
    assert rate == 0.5
