"""Snapshots as a client orders them, and their files."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.integration.pool.client import PoolClient


def request(pool: PoolClient, key: str, recipe: str, order: Any, **fields: Any) -> dict[str, Any]:
    body = {"campaign_id": pool.campaign, "key": key, "recipe": recipe, "order_id": order["id"], "seed": 7}
    return body | fields


async def built(pool: PoolClient, key: str, recipe: str, order: Any, **fields: Any) -> Any:
    """The snapshot when it is no longer building; ordering it again changes nothing, and otherwise is a conflict."""
    body = request(pool, key, recipe, order, **fields)
    snapshot = await pool.ask("POST", "/v1/snapshots", 201, json=body)
    async with asyncio.timeout(60):
        while snapshot["status"] == "building":
            await asyncio.sleep(0.05)
            snapshot = await pool.ask("GET", f"/v1/snapshots/{snapshot['id']}")
    assert await pool.ask("POST", "/v1/snapshots", 200, json=body) == snapshot
    await pool.ask("POST", "/v1/snapshots", 409, json=body | {"seed": 8})
    return snapshot


def rows_of(snapshot: Any) -> list[Any]:
    """The rows of its file, with the texts of its messages as `question` and `text`."""
    file = Path(snapshot["uri"])
    assert hashlib.sha256(file.read_bytes()).hexdigest() == snapshot["content_hash"]
    assert file.name == f"{snapshot['content_hash']}.parquet"
    rows: list[Any] = pq.read_table(file).to_pylist()
    assert len(rows) == snapshot["rows"] > 0
    for row in rows:
        assert [message["role"] for message in row["prompt"] + row["completion"]] == ["user", "assistant"]
        row["question"], row["text"] = row["prompt"][0]["content"], row["completion"][0]["content"]
        spans = [(segment["start"], segment["end"]) for segment in row["segments"]]
        assert [0, *(end for _, end in spans)] == [*(start for start, _ in spans), len(row["text"])]
    return rows


async def members(pool: PoolClient, snapshot: Any) -> set[str]:
    """The stored ids of the questions it has rows of."""
    found = await pool.execute(
        "SELECT question_id FROM pool.snapshot_questions WHERE snapshot_id = :id", id=snapshot["id"]
    )
    return {str(row.question_id) for row in found}


def renamed(snapshot: Any, columns: list[str]) -> str:
    """Give the columns of its file other names; returns the hash of that."""
    file = Path(snapshot["uri"])
    pq.write_table(pq.read_table(file).rename_columns(columns), file)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def cut_short(snapshot: Any) -> None:
    """Damage its file."""
    file = Path(snapshot["uri"])
    file.write_bytes(file.read_bytes()[:-9])


def remove(snapshot: Any) -> None:
    """Lose its file."""
    Path(snapshot["uri"]).unlink()
