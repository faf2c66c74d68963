"""Bodies of very many items, and few bytes that become very many: the API's process stays small, and goes on.

`python -m benchmarks.million_items` says the same of a million items, with figures.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from benchmarks import made_questions as made
from benchmarks.memory import Watch
from shared.json_shape import MAX_VALUES
from tests.faults.servers import KillablePool

pytestmark = pytest.mark.integration
ITEMS = 50_000
KNOWN = 2000
GROWTH_MB = 250
ARROW, NDJSON, JSON = "application/vnd.apache.arrow.stream", "application/x-ndjson", "application/json"


@pytest.fixture
def process(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[KillablePool]:
    """The pool's API in a process of its own, that has answered a request of each kind."""
    pool = KillablePool(tmp_path, database_url, redis_url)
    try:
        pool.until_ready()
        yield pool
    finally:
        pool.stop()


def lines(count: int) -> bytes:
    """The same questions again and again."""
    return made.ndjson([made.question(number) for number in range(KNOWN)]) * (count // KNOWN)


def test_bodies_of_many_items_and_bombs_in_bounded_memory(process: KillablePool):
    campaign = str(uuid4())
    with httpx.Client(base_url=process.url, timeout=110, trust_env=False) as http:

        def send(path: str, body: bytes, kind: str, *, is_gzip: bool = False) -> tuple[int, Any]:
            headers = {"Content-Type": kind} | ({"Content-Encoding": "gzip"} if is_gzip else {})
            where = {"campaign": campaign} if path == "/v1/questions" else {}
            answer = http.post(path, content=body, headers=headers, params=where)
            return answer.status_code, answer.json()

        def refused(path: str, body: bytes, kind: str, *, is_gzip: bool = False) -> tuple[int, str]:
            status, answer = send(path, body, kind, is_gzip=is_gzip)
            return status, answer["error"]["code"]

        http.put(f"/v1/campaigns/{campaign}/settings", json={"name": "memory"}).raise_for_status()
        send("/v1/questions", lines(KNOWN), NDJSON)
        many = gzip.compress(lines(ITEMS), 1)
        wrong = b",".join([b"{}"] * (MAX_VALUES // 2 - 10))
        fields = b",".join(b'"%x": 0' % number for number in range(ITEMS * 8))
        zeros = gzip.compress(bytes(120_000_000))
        with Watch(process.process.pid) as watch:
            status, report = send("/v1/questions", many, NDJSON, is_gzip=True)
            assert (status, report["accepted"], report["refused"]) == (200, 0, 0)
            assert report["duplicate"] == ITEMS
            status, report = send("/v1/questions", b"[" + wrong[: 3 * ITEMS - 1] + b"]", JSON)
            assert (status, report["refused"]) == (200, ITEMS)
            status, report = send("/v1/questions", b"{" + fields[:900_000].rpartition(b",")[0] + b"}", JSON)
            assert (status, report["refused"]) == (200, 1)
            assert refused("/v1/questions", zeros, NDJSON, is_gzip=True) == (413, "gzip_bomb")
            assert refused("/v1/questions", zeros, ARROW, is_gzip=True) == (400, "arrow_broken")
            assert refused("/v1/groups", zeros, JSON, is_gzip=True) == (413, "too_large")
            assert refused("/v1/groups", zeros, ARROW, is_gzip=True) == (422, "invalid_arrow")
            assert refused("/v1/groups", b'{"groups":[' + wrong + b"]}", JSON) == (422, "invalid_request")
            assert refused("/v1/groups", b"{" + fields + b"}", JSON) == (413, "body_too_complex")
            dense = gzip.compress(b"[" + b"[]," * 21_000_000 + b"1]", 1)
            assert refused("/v1/groups", dense, JSON, is_gzip=True) == (413, "body_too_complex")
            inside = b'{"groups":[{"responses":[' + wrong + b"]}]}"
            assert refused("/v1/groups", inside, JSON) == (422, "invalid_request")
            assert refused("/v1/assignments/heartbeat", b'{"leases":[' + wrong + b"]}", JSON) == (
                422,
                "invalid_request",
            )
            assert refused("/v1/assignments/heartbeat", b"{" + fields[: 3 << 20], JSON) == (422, "invalid_request")
            too_many = json.dumps(dict.fromkeys(map(str, range(100_000)), 0)).encode()
            assert refused("/v1/assignments/heartbeat", too_many, JSON) == (413, "body_too_complex")
        assert http.get("/health/ready").status_code == 200
    assert watch.rss - watch.before < GROWTH_MB, f"{watch.before:.0f} MB became {watch.rss:.0f} MB"
