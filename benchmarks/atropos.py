"""What the pool is compared with: `run-api` of atroposlib, a queue in the memory of one process, in an environment of its own.

Its server needs FastAPI and uvicorn alone, so the rest of what atroposlib names is not installed. What a sampler sends and a trainer
gets is what its own environments and trainers use: lists of numbers as JSON, masks and sampled log-probabilities with them.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks import servers
from shared.packed import PackedGroupIn, float32s, int32s

VERSION = "0.4.0"


@contextmanager
def serving(python: str | None) -> Iterator[str]:
    """The base URL of a fresh server, run by `python`, or by an environment that is made for it."""
    if python is not None:
        quiet = ("--no-access-log", "--log-level", "warning")
        with servers.api("atroposlib.api:app", "/", {}, *quiet, serve=("-m", "uvicorn"), python=python) as url:
            yield url
        return
    with tempfile.TemporaryDirectory(prefix="headwater-atropos-") as directory:
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        made = str(Path(directory) / "bin" / "python")
        install = [made, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, "fastapi", "uvicorn[standard]"], check=True)
        subprocess.run([*install, "--no-deps", f"atroposlib=={VERSION}"], check=True)
        with serving(made) as url:
            yield url


async def begin(client: httpx.AsyncClient, batch_sequences: int) -> None:
    """Empty its queue, and register a trainer that takes batches of so many sequences."""
    (await client.get("/reset_data")).raise_for_status()
    trainer = {"wandb_group": "", "wandb_project": "", "batch_size": batch_sequences, "max_token_len": 1 << 20}
    trainer |= {"checkpoint_dir": "", "save_checkpoint_interval": 1, "starting_step": 0, "num_steps": 1 << 20}
    (await client.post("/register", json=trainer)).raise_for_status()


def body(groups: Sequence[PackedGroupIn]) -> bytes:
    """Groups as `POST /scored_data_list` takes them."""
    return json.dumps([_scored_data(group) for group in groups]).encode()


def _scored_data(group: PackedGroupIn) -> dict[str, Any]:
    prompt = int32s(group.prompt_token_ids).tolist()
    tokens = [int32s(response.token_ids).tolist() for response in group.responses]
    logprobs = [float32s(response.logprobs).tolist() for response in group.responses]
    return {
        "tokens": [prompt + ids for ids in tokens],
        "masks": [[-100] * len(prompt) + ids for ids in tokens],
        "scores": [1.0 if response.verdict.outcome == "correct" else -1.0 for response in group.responses],
        "inference_logprobs": [[1.0] * len(prompt) + values for values in logprobs],
    }
