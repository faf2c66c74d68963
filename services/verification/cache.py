"""Judgements that were given before, by the hash of (verifier@version, kind, reference, answer).

Two layers: this process's memory, and Valkey, which all replicas share and which outlives them. Both are bounded by a number of
entries: memory forgets the least recently used; in Valkey each hash has one of `entries` places, and the newest keeps it (~100 bytes
each). Invariant: only what was scored is remembered, and a Valkey that is away, slow or wiped costs time, never a verdict.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Collection
from hashlib import blake2b

from prometheus_client import Counter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.verification.kinds.judgement import CORRECT, INCORRECT, Judgement
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import VerdictOutcome

HASH_BYTES = 16
VALKEY_KEY = "headwater:verification:judgements"
VALKEY_DEADLINE_S = 0.5
VALKEY_PAUSE_S = 10.0
_MARKS = {b"+": CORRECT, b"-": INCORRECT}
_MARK_OF = {judgement.outcome: mark for mark, judgement in _MARKS.items()}
_lookups = Counter("headwater_verification_cache_lookups", "Judgements looked up, by where they were", ["found"])
_failures = Counter("headwater_verification_cache_failures", "Times that Valkey did not answer")
log = logging.getLogger(__name__)


def content_hash(verifier: str, kind: QuestionKind, reference: str, answer: str) -> bytes:
    """The key of a check: HASH_BYTES bytes, another for each verifier version."""
    sizes = f"{verifier}\0{kind}\0{len(reference)}\0{len(answer)}\0"
    # Half a surrogate pair is an answer too: whatever was sampled has a hash.
    text = f"{sizes}{reference}\0{answer}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=HASH_BYTES).digest()


class Cache:
    """Remembers `entries` judgements in memory and as many in `valkey` (None: in memory alone)."""

    def __init__(self, entries: int, valkey: Redis | None = None) -> None:
        self._entries = entries
        self._valkey = valkey
        self._valkey_from = float("-inf")
        self._memory: OrderedDict[bytes, Judgement] = OrderedDict()
        self._new: dict[bytes, Judgement] = {}

    def get(self, key: bytes) -> Judgement | None:
        """What memory knows."""
        known = self._memory.get(key)
        if known is not None:
            self._memory.move_to_end(key)
        _lookups.labels("nowhere" if known is None else "memory").inc()
        return known

    def put(self, key: bytes, judgement: Judgement) -> None:
        """Remember a judgement, in Valkey with the next `store`; nothing for one that is unscored."""
        if judgement.outcome is not VerdictOutcome.UNSCORED:
            self._remember(key, Judgement(judgement.outcome))  # remembering costs no milliseconds
            self._new[key] = judgement

    async def load(self, keys: Collection[bytes]) -> None:
        """Bring into memory what Valkey knows of these, in one round trip."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._memory]
        if not missing or not self._is_asked():
            return
        try:
            assert self._valkey is not None
            values = await self._valkey.hmget(VALKEY_KEY, [self._place(key) for key in missing])
        except (RedisError, OSError) as error:
            self._leave_alone(error)
            return
        for key, value in zip(missing, values, strict=True):
            entry = value if isinstance(value, bytes) else b""
            if entry[:HASH_BYTES] == key and entry[HASH_BYTES:] in _MARKS:
                self._remember(key, _MARKS[entry[HASH_BYTES:]])
                _lookups.labels("valkey").inc()

    async def store(self) -> None:
        """Write what is new to Valkey, in one round trip."""
        new, self._new = self._new, {}
        if not new or not self._is_asked():
            return
        places = [part for key, new_one in new.items() for part in (self._place(key), key + _MARK_OF[new_one.outcome])]
        try:
            assert self._valkey is not None
            await self._valkey.hset(VALKEY_KEY, items=places)
        except (RedisError, OSError) as error:
            self._leave_alone(error)

    async def close(self) -> None:
        """Close the connections."""
        if self._valkey is not None:
            await self._valkey.aclose()

    def _remember(self, key: bytes, judgement: Judgement) -> None:
        self._memory[key] = judgement
        if len(self._memory) > self._entries:
            self._memory.popitem(last=False)

    def _place(self, key: bytes) -> bytes:
        return b"%d" % (int.from_bytes(key[:8]) % self._entries)

    def _is_asked(self) -> bool:
        return self._valkey is not None and time.monotonic() >= self._valkey_from

    def _leave_alone(self, error: Exception) -> None:
        _failures.inc()
        self._valkey_from = time.monotonic() + VALKEY_PAUSE_S
        log.warning("Valkey keeps no judgements for %.0f s: %s %s", VALKEY_PAUSE_S, type(error).__name__, error)


def connect(redis_url: str) -> Redis:
    """A client that waits no longer than VALKEY_DEADLINE_S."""
    return Redis.from_url(
        redis_url, socket_timeout=VALKEY_DEADLINE_S, socket_connect_timeout=VALKEY_DEADLINE_S, retry=None
    )
