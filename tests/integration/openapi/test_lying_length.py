"""A Content-Length that is not the body's, where bodies are read as they stream in: nothing is half-written, and the API goes on."""

import asyncio
import gzip
import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import httpx
import pyarrow as pa
import pytest

from shared.arrow import hand_in
from shared.contracts.orders import GroupIn
from shared.packed import pack_group_in
from tests.integration.openapi.conftest import Apis
from tests.integration.pool.client import group

pytestmark = pytest.mark.integration
ARROW, NDJSON, JSON = "application/vnd.apache.arrow.stream", "application/x-ndjson", "application/json"
SILENCE_S = 0.5
COUNTED = ("groups", "responses", "group_tokens", "idempotency_keys")


@dataclass(frozen=True)
class Way:
    """A way in: its address, its headers, a body of several items, and what counts what it wrote."""

    path: str
    headers: dict[str, str]
    body: bytes


class Door:
    """The pool, or the gateway before it, by raw sockets."""

    def __init__(self, apis: Apis, service: str) -> None:
        self.apis, self.service = apis, service
        self._address = urlsplit(apis.urls[service])

    def ask(self, method: str, path: str, **request: Any) -> Any:
        answer = httpx.request(method, f"{self.apis.urls['pool']}{path}", timeout=120, trust_env=False, **request)
        assert answer.is_success, answer.text
        return answer.json()

    def campaign(self) -> str:
        """A new one."""
        campaign = str(uuid4())
        self.ask("PUT", f"/v1/campaigns/{campaign}/settings", json={"name": "lies"})
        return campaign

    def send(self, way: Way, said: int, sent: bytes, *, then_end: bool = False) -> list[tuple[int, bytes]]:
        """Status and body of every answer to a request whose length is said to be this; `then_end`: nothing more will come."""
        headers = way.headers | self.apis.headers(self.service) | {"Host": "x", "Content-Length": str(said)}
        head = f"POST {way.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with socket.create_connection((self._address.hostname, self._address.port), timeout=60) as connection:
            connection.sendall(head.encode() + b"\r\n" + sent)
            if then_end:
                connection.shutdown(socket.SHUT_WR)
            answered = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        parts = re.split(rb"HTTP/1\.1 (\d{3})", answered)[1:]
        return [
            (int(status), rest.partition(b"\r\n\r\n")[2]) for status, rest in zip(parts[::2], parts[1::2], strict=True)
        ]

    def whole(self, way: Way) -> Any:
        """The answer to the same request, with its true length."""
        closing = Way(way.path, way.headers | {"Connection": "close"}, way.body)
        answers = self.send(closing, len(way.body), way.body)
        assert [status for status, _ in answers] == [200], answers
        return json.loads(answers[0][1])

    def execute(self, statement: str, *values: Any) -> list[Any]:
        """SQL, to count rows behind the service's back."""

        async def run() -> list[Any]:
            connection = await asyncpg.connect(self.apis.database_url.replace("+asyncpg", ""))
            try:
                return list(await connection.fetch(statement, *values))
            finally:
                await connection.close()

        return asyncio.run(run())

    def rows(self) -> dict[str, int]:
        """How many there are of what a hand-in writes."""
        return {name: self.execute(f"SELECT count(*) FROM pool.{name}")[0][0] for name in COUNTED}


@pytest.fixture(params=["pool", "gateway"])
def door(request: pytest.FixtureRequest, apis: Apis) -> Door:
    """Each door in turn."""
    return Door(apis, request.param)


@pytest.fixture
def pool(apis: Apis) -> Door:
    """The pool's own door."""
    return Door(apis, "pool")


def question_lines(count: int) -> list[bytes]:
    return [b'{"question": "How much is %d and 1?", "answer": "%d"}\n' % (at, at + 1) for at in range(count)]


def arrow(count: int) -> bytes:
    rows = [json.loads(line) for line in question_lines(count)]
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    return bytes(sink.getvalue())


QUESTIONS: dict[str, Callable[[int], tuple[bytes, dict[str, str]]]] = {
    "ndjson": lambda count: (b"".join(question_lines(count)), {"Content-Type": NDJSON}),
    "json": lambda count: (b"[" + b",".join(question_lines(count)) + b"]", {"Content-Type": JSON}),
    "gzip": lambda count: (
        gzip.compress(b"".join(question_lines(count))),
        {"Content-Type": NDJSON, "Content-Encoding": "gzip"},
    ),
    "arrow": lambda count: (arrow(count), {"Content-Type": ARROW}),
}


def questions(door: Door, kind: str, count: int = 60) -> tuple[Way, str]:
    campaign = door.campaign()
    body, headers = QUESTIONS[kind](count)
    return Way(f"/v1/questions?campaign={campaign}", headers, body), campaign


def assert_only_whole_questions(door: Door, campaign: str, way: Way, count: int = 60) -> None:
    """Each stored question is one that was sent; all of it sent again completes it, each once, and the counters agree."""

    def stored() -> list[tuple[str, str]]:
        rows = door.execute("SELECT text, answer FROM pool.questions WHERE campaign_id = $1", campaign)
        return sorted((row["text"], row["answer"]) for row in rows)

    sent = sorted((one["question"], one["answer"]) for one in map(json.loads, question_lines(count)))
    assert set(stored()) <= set(sent)
    report = door.whole(way)
    assert (report["accepted"] + report["duplicate"], report["refused"]) == (count, 0)
    assert stored() == sent
    assert door.ask("GET", "/v1/pools", params={"campaign": campaign})["train"] == count


@pytest.mark.parametrize("kind", QUESTIONS)
def test_questions_of_which_less_comes_than_was_said(door: Door, kind: str):
    way, campaign = questions(door, kind)
    answers = door.send(way, len(way.body) + 1000, way.body[:-20], then_end=True)
    assert all(400 <= status < 500 for status, _ in answers), answers
    assert_only_whole_questions(door, campaign, way)


@pytest.mark.parametrize("kind", QUESTIONS)
def test_questions_of_which_more_comes_than_was_said(door: Door, kind: str):
    """What is behind the said length is no request, and ends the connection."""
    way, campaign = questions(door, kind)
    answers = door.send(way, len(way.body) - 20, way.body)
    assert answers
    assert all(400 <= status < 500 for status, _ in answers), answers
    assert_only_whole_questions(door, campaign, way)


@pytest.fixture(params=["json", "arrow"])
def groups(request: pytest.FixtureRequest, pool: Door) -> Iterator[Way]:
    """Two groups that the pool waits for."""
    campaign = pool.campaign()
    pool.ask("POST", "/v1/questions", params={"campaign": campaign}, json=[json.loads(x) for x in question_lines(2)])
    order = {"campaign_id": campaign, "key": "k", "purpose": "probe", "policy_id": str(uuid4()), "policy_version": 0}
    order_id = pool.ask("POST", "/v1/orders", json=order | {"k": 2, "sampling": {}})["id"]
    claimed = pool.ask("POST", "/v1/assignments/claim", json={"worker": "w", "limit": 1024})["assignments"]
    made = [group(assignment) for assignment in claimed if assignment["order_id"] == order_id]
    assert len(made) == 2
    if request.param == "json":
        yield Way("/v1/groups", {"Content-Type": JSON}, json.dumps({"groups": made}).encode())
    else:
        packed = [pack_group_in(GroupIn.model_validate(one)) for one in made]
        yield Way("/v1/groups", {"Content-Type": ARROW}, bytes(hand_in.write(packed)))


def assert_stored_whole(pool: Door, way: Way, before: dict[str, int]) -> None:
    assert pool.rows() == before
    assert [receipt["status"] for receipt in pool.whole(way)["receipts"]] == ["stored", "stored"]
    after = pool.rows()
    assert [after[name] - before[name] for name in ("groups", "responses", "group_tokens")] == [2, 4, 2]


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "lies"}], ids=["without a key", "with a key"])
def test_groups_of_which_less_comes_than_was_said(pool: Door, groups: Way, key: dict[str, str]):
    before = pool.rows()
    lying = Way(groups.path, groups.headers | key, groups.body)
    for sent in (groups.body, groups.body[: len(groups.body) // 2], b""):
        answers = pool.send(lying, len(groups.body) + 1, sent, then_end=True)
        assert all(400 <= status < 500 for status, _ in answers), answers
    assert_stored_whole(pool, groups, before)


def test_groups_of_which_more_comes_than_was_said(pool: Door, groups: Way):
    before = pool.rows()
    for said in (len(groups.body) - 1, len(groups.body) // 2, 0):
        answers = pool.send(groups, said, groups.body)
        assert answers
        assert all(400 <= status < 500 for status, _ in answers), answers
    assert_stored_whole(pool, groups, before)


@pytest.mark.parametrize("kind", ["ndjson", "arrow"])
def test_a_sender_of_questions_who_says_nothing_more_is_not_waited_for(
    door: Door, kind: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shared.bodies.SILENCE_S", SILENCE_S)
    way, campaign = questions(door, kind)
    [(status, body)] = door.send(way, len(way.body) + 1000, way.body[:-20])
    assert (status, json.loads(body)["error"]["code"]) == (408, "body_timeout")
    assert_only_whole_questions(door, campaign, way)


def test_a_sender_of_groups_who_says_nothing_more_is_not_waited_for(
    pool: Door, groups: Way, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shared.bodies.SILENCE_S", SILENCE_S)
    before = pool.rows()
    [(status, body)] = pool.send(groups, len(groups.body) + 1, groups.body)
    assert (status, json.loads(body)["error"]["code"]) == (408, "body_timeout")
    assert_stored_whole(pool, groups, before)
