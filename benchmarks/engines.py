"""A real vLLM on this machine for the benchmarks, started as `headwater up` starts it, and the generation API before it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import httpx

from benchmarks import servers
from services.local import engine
from services.local.directory import DataDirectory
from services.local.engine import EngineModel
from shared.artifacts import hash_directory
from shared.contracts.policies import Policy, PolicyKind

ENGINE_DEADLINE_S = 300.0
DEADLINE_S = 900.0


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine: its address, what it serves, and a folder where policies may be published."""

    url: str
    model: EngineModel
    artifacts: Path

    @property
    def weights(self) -> Path:
        """The directory of the base weights."""
        return Path(self.model.path)


@contextmanager
def running(name: str) -> Iterator[Engine]:
    """vLLM with the model called `name`, on a free port; its words are in a file that is shown if it does not start."""
    directory = Path(tempfile.mkdtemp(prefix="headwater-engine-"))
    try:
        data = DataDirectory(directory)
        data.models.mkdir(parents=True)
        model = engine.make_model(name, data, seed=0)
        port = servers.free_port()
        environment = {**engine.environment(model), **engine.OFFLINE}
        with servers.process(
            engine.command(model, port),
            signal.SIGTERM,
            lambda: answers(f"http://127.0.0.1:{port}/health"),
            environment,
            deadline_s=ENGINE_DEADLINE_S,
            words=directory / "engine.log",
        ):
            yield Engine(f"http://127.0.0.1:{port}", model, directory / "artifacts")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def answers(url: str) -> bool:
    """Whether there is a 200."""
    try:
        return httpx.get(url, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def environment(of: Engine, database_url: str) -> dict[str, str]:
    """The settings of services that use this engine."""
    return {
        "HEADWATER_DATABASE_URL": database_url,
        "HEADWATER_SERVICE_TOKEN": servers.TOKEN,
        "HEADWATER_ENGINE_URLS": of.url,
        "HEADWATER_ENGINE_MODEL": str(of.weights),
        "HEADWATER_ENGINE_MODEL_NAME": of.model.name,
        "HEADWATER_ARTIFACTS_URL": str(of.artifacts),
    }


@contextmanager
def generation(of: Engine, database_url: str) -> Iterator[str]:
    """The address of a generation API whose engine is ready."""
    with servers.api("services.generation.main:create_app", "/health/ready", environment(of, database_url)) as url:
        yield url


def client(url: str) -> httpx.Client:
    """A client with the service token."""
    headers = {"X-Headwater-Service-Token": servers.TOKEN}
    return httpx.Client(base_url=url, headers=headers, timeout=DEADLINE_S, trust_env=False)


def register(http: httpx.Client, campaign: UUID, name: str, weights: Path, base: Policy | None = None) -> Policy:
    """A policy of these weights: the base, or an adapter on it."""
    body = {
        "campaign_id": str(campaign),
        "name": name,
        "kind": PolicyKind.ADAPTER if base else PolicyKind.BASE,
        "uri": str(weights),
        "content_hash": hash_directory(weights),
        "base_policy_id": str(base.id) if base else None,
    }
    return Policy.model_validate_json(http.post("/v1/policies", json=body).raise_for_status().content)


def make_adapters(of: Engine, count: int) -> list[Path]:
    """Directories of random adapters over all linear layers, made by a process of their own."""
    of.artifacts.mkdir(exist_ok=True)
    folders = [of.artifacts / f"adapter-{uuid4().hex[:8]}" for _ in range(count)]
    program = (
        "import sys, torch\n"
        "from peft import LoraConfig, get_peft_model\n"
        "from transformers import AutoModelForCausalLM\n"
        "for seed, folder in enumerate(sys.argv[2:]):\n"
        "    torch.manual_seed(seed)\n"
        "    model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "    config = LoraConfig(r=8, lora_alpha=16, target_modules='all-linear', init_lora_weights=False)\n"
        "    get_peft_model(model, config).save_pretrained(folder)\n"
    )
    command = [sys.executable, "-c", program, str(of.weights), *map(str, folders)]
    subprocess.run(command, env=os.environ | dict(engine.OFFLINE), check=True)
    return folders
