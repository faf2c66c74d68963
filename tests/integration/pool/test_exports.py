"""Exported snapshots: whole, or visibly cut; `datasets` loads them and TRL trains on them as they are."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.pool.building import built, cut_short, remove, rows_of
from tests.integration.pool.client import PoolClient

pytestmark = pytest.mark.integration


async def probed(pool: PoolClient, key: str = "probe") -> Any:
    await pool.submit(30, domain="arithmetic")
    order = await pool.order(key=key, k=4)
    await pool.answer_all(
        lambda assignment, at: "correct" if at >= int(assignment["question"]["answer"]) % 4 else "incorrect"
    )
    return order


async def exported(pool: PoolClient, snapshot: Any, file_format: str) -> httpx.Response:
    answer = await pool.http.get(f"/v1/snapshots/{snapshot['id']}/export", params={"format": file_format})
    assert answer.status_code == 200, answer.text
    return answer


async def test_both_formats_hold_the_same_rows(pool: PoolClient):
    snapshot = await built(pool, "own", "rejection", await probed(pool))
    rows = rows_of(snapshot)
    answer = await exported(pool, snapshot, "parquet")
    assert hashlib.sha256(answer.content).hexdigest() == snapshot["content_hash"]
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-disposition"] == f'attachment; filename="{snapshot["id"]}.parquet"'
    lines = (await exported(pool, snapshot, "jsonl")).text.splitlines()
    columns = ("question_id", "prompt", "completion", "segments", "rounds")
    assert [json.loads(line) for line in lines] == [{name: row[name] for name in columns} for row in rows]


async def test_what_cannot_be_exported_is_said(pool: PoolClient):
    snapshot = await built(pool, "own", "rejection", await probed(pool))
    path = f"/v1/snapshots/{snapshot['id']}/export"
    await pool.ask("GET", path, 422, params={"format": "csv"})
    cut_short(snapshot)
    with pytest.raises(RuntimeError, match="response already started") as cut:
        await pool.http.get(path)
    assert "is damaged" in str(cut.value.__cause__)
    remove(snapshot)
    for file_format in ("parquet", "jsonl"):
        answer = await pool.ask("GET", path, 409, params={"format": file_format})
        assert "is not there" in answer["error"]["message"]
    await pool.execute("UPDATE pool.snapshots SET status = 'failed'")
    answer = await pool.ask("GET", path, 409)
    assert answer["error"]["message"] == "Snapshot 'own' is failed; it can be exported when it is ready."


@pytest.mark.parametrize("recipe", ["rejection", "s2r", "offline-rl"])
async def test_datasets_loads_them(pool: PoolClient, tmp_path: Path, recipe: str):
    snapshot = await built(pool, "own", recipe, await probed(pool))
    for file_format in ("parquet", "jsonl"):
        content = (await exported(pool, snapshot, file_format)).content
        loaded = await asyncio.to_thread(load, content, file_format, tmp_path)
        for line, row in zip(loaded, rows_of(snapshot), strict=True):
            assert line == {name: row[name] for name in line}
            assert set(row) == set(line) | {"question", "text"}


async def test_trl_trains_on_them_as_they_are(pool: PoolClient, tmp_path: Path):
    snapshot = await built(pool, "own", "rejection", await probed(pool))
    content = (await exported(pool, snapshot, "jsonl")).content
    loaded = await asyncio.to_thread(load, content, "jsonl", tmp_path)
    await asyncio.to_thread(train_one_step, loaded, tmp_path, rows_of(snapshot))


def load(content: bytes, file_format: str, directory: Path) -> Any:
    """An exported file as `datasets` reads it."""
    import datasets

    path = directory / f"rows.{file_format}"
    path.write_bytes(content)
    kind = {"jsonl": "json"}.get(file_format, file_format)
    return datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(directory / "cache"))


def train_one_step(loaded: Any, directory: Path, rows: list[Any]) -> None:
    """A step of TRL's trainer: the loss is over the whole response with its end token, and over nothing else."""
    import torch
    from trl import SFTConfig, SFTTrainer

    from services.training.tiny import make_tiny_model

    model = directory / "model"
    make_tiny_model(model, hidden_size=32, intermediate_size=64, layers=1, heads=2)
    config = SFTConfig(
        output_dir=str(directory / "trained"),
        max_steps=1,
        per_device_train_batch_size=4,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(model=str(model), args=config, train_dataset=loaded)
    before = {name: weights.clone() for name, weights in trainer.model.named_parameters()}
    trainer.train()
    assert any(not torch.equal(before[name], weights) for name, weights in trainer.model.named_parameters())
    tokenizer = trainer.processing_class
    texts = {row["text"] + tokenizer.eos_token for row in rows}
    batch = next(iter(trainer.get_train_dataloader()))
    for labels in batch["labels"]:
        assert tokenizer.decode(labels[labels != -100]) in texts
