"""Questions for the benchmarks of ingest: prose of made-up words, all different, by their number."""

import hashlib
import json
from collections.abc import Sequence
from random import Random
from typing import Any
from uuid import UUID

import pyarrow as pa

TEXT_WORDS = 36
_SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va")
VOCABULARY = [a + b + c for a in _SYLLABLES for b in _SYLLABLES for c in _SYLLABLES]


def question(number: int, seed: int = 0) -> dict[str, Any]:
    """One question of about 300 characters, with a solution as long; another number or seed is far from it."""
    random = Random(f"{seed}:{number}")
    text = " ".join(random.choices(VOCABULARY, k=TEXT_WORDS))
    return {
        "question": f"If {text}, how much is {number % 1000} and {random.randrange(1000)}?",
        "answer": str(random.randrange(10_000)),
        "solution": " ".join(random.choices(VOCABULARY, k=TEXT_WORDS)),
        "kind": "numeric",
        "source": "benchmark",
    }


def nearly(original: dict[str, Any]) -> dict[str, Any]:
    """The same question with one other word: 87 % of the word 3-grams are in common."""
    words = original["question"].split()
    words[len(words) // 2] = "otherwise"
    return original | {"question": " ".join(words)}


def ndjson(questions: Sequence[dict[str, Any]]) -> bytes:
    """A line a question."""
    return "".join(f"{json.dumps(one)}\n" for one in questions).encode()


def arrow(questions: Sequence[dict[str, Any]]) -> bytes:
    """An Arrow IPC stream in batches of 4,096 rows."""
    table = pa.Table.from_pylist(list(questions))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=4096)
    return bytes(sink.getvalue())


def record(campaign: UUID, one: dict[str, Any]) -> tuple[Any, ...]:
    """A row of the table that raw COPY writes: id, campaign, hash and the fields."""
    digest = hashlib.sha256(one["question"].encode()).digest()
    fields = (one["question"], one["answer"], one["solution"], one["kind"], "train", "text", one["source"])
    return UUID(bytes=digest[:16]), campaign, digest, *fields
