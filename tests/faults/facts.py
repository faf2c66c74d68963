"""What is stored after a fault run: read with plain SQL, and the pool's own counters as its API tells them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.faults.journal import Fact


@dataclass(frozen=True)
class Stored:
    """The rows, each as a mapping of what the checks read."""

    questions: list[Any]
    orders: list[Any]
    assignments: list[Any]
    groups: list[Any]
    batches: list[Any]
    batch_groups: list[Any]


@dataclass(frozen=True)
class Evidence:
    """What is stored, what was answered, what was trained on, what is counted, and the bound that all of it kept."""

    stored: Stored
    journal: list[Fact]
    checkpoints: list[Fact]
    counted_orders: dict[str, dict[str, Any]]
    counted_pool: dict[str, Any]
    campaign: str
    standing_order: str
    max_staleness: int


QUERIES = {
    "questions": "SELECT id::text, text, state, split FROM pool.questions",
    "orders": "SELECT id::text, key, state, watermark_groups IS NOT NULL AS standing FROM pool.orders",
    "assignments": "SELECT id::text, order_id::text, state, reason FROM pool.assignments",
    "groups": """
        SELECT g.id::text, g.assignment_id::text, g.order_id::text, g.policy_version, g.consumption, g.drop_reason,
            (SELECT count(*) FROM pool.responses r WHERE r.group_id = g.id) AS responses, o.k
        FROM pool.groups g JOIN pool.orders o ON o.id = g.order_id
    """,
    "batches": "SELECT id::text, run_id::text, step, state FROM pool.batches",
    "batch_groups": "SELECT batch_id::text, group_id::text, staleness FROM pool.batch_groups",
}


async def read_stored(connection: AsyncConnection) -> Stored:
    """Everything, in one transaction."""
    rows = {name: list((await connection.execute(text(query))).mappings()) for name, query in QUERIES.items()}
    return Stored(**rows)


def read_checkpoints(directory: Path) -> list[Fact]:
    """The checkpoints that every run has kept, oldest first."""
    read = [json.loads(path.read_text()) for path in directory.glob("*/checkpoints/*.json")]
    return sorted(read, key=lambda checkpoint: (checkpoint["run"], checkpoint["step"]))


def twice(items: Any) -> list[Any]:
    """Those that are there more than once."""
    return [item for item, times in Counter(items).items() if times > 1]
