"""Judgements remembered in a real Valkey: shared, bounded, and a Valkey that is away costs no verdict."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from services.verification.cache import VALKEY_KEY, Cache, connect, content_hash
from services.verification.kinds.judgement import CORRECT, INCORRECT, Judgement, unscored
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import UnscoredReason

pytestmark = pytest.mark.integration


@pytest.fixture
async def valkey(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url)
    yield client
    await client.aclose()


def key(answer: str, verifier: str = "v@1") -> bytes:
    return content_hash(verifier, QuestionKind.MATH, "x", answer)


async def test_another_replica_knows_it(valkey: Redis):
    one, other = Cache(1000, valkey), Cache(1000, valkey)
    one.put(key("y"), Judgement(CORRECT.outcome, milliseconds=7.0))
    one.put(key("z"), INCORRECT)
    one.put(key("late"), unscored(UnscoredReason.TIMEOUT))
    await one.store()
    await other.load([key("y"), key("z"), key("late"), key("y", "v@2"), key("never")])
    assert [other.get(key(answer)) for answer in ("y", "z", "late", "never")] == [CORRECT, INCORRECT, None, None]
    assert other.get(key("y", "v@2")) is None


async def test_neither_layer_grows_beyond_its_bound(valkey: Redis):
    cache = Cache(50, valkey)
    for number in range(1000):
        cache.put(key(str(number)), CORRECT)
    assert sum(cache.get(key(str(number))) is CORRECT for number in range(1000)) <= 50
    await cache.store()
    assert await valkey.hlen(VALKEY_KEY) <= 50


async def test_a_wiped_or_damaged_valkey_knows_nothing(valkey: Redis):
    cache = Cache(1, valkey)
    cache.put(key("y"), CORRECT)
    await cache.store()
    for damage in (b"", b"+", key("y"), key("y") + b"?", os.urandom(17), None):
        if damage is None:
            await valkey.flushdb()
        else:
            await valkey.hset(VALKEY_KEY, "0", damage)
        fresh = Cache(1, valkey)
        await fresh.load([key("y")])
        assert fresh.get(key("y")) is None


@pytest.mark.parametrize("answers", ["nothing", "nobody"])
async def test_a_valkey_that_is_away_is_left_alone(answers: str):
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if answers == "nobody":
        server.close()
    valkey = connect(f"redis://127.0.0.1:{port}/0")
    cache = Cache(10, valkey)
    cache.put(key("y"), CORRECT)
    async with asyncio.timeout(30):  # it would hang without its own deadlines
        await cache.load([key("z")])
        await cache.store()
    assert cache.get(key("y")) == CORRECT
    server.close()
    await valkey.aclose()


def test_half_a_surrogate_pair_has_a_hash_and_fields_do_not_run_together():
    assert len(key("\ud800")) == 16
    hashes = {content_hash("v@1", QuestionKind.MATH, *pair) for pair in (("ab", "c"), ("a", "bc"), ("a\0b", "c"))}
    assert len(hashes) == 3
