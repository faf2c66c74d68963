"""The generation API on a real socket, a real Postgres, and a stand-in engine."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio

from services.generation.main import create_app
from services.generation.settings import GenerationSettings
from shared.artifacts import hash_directory
from shared.contracts.generation import PromptSamples
from shared.contracts.policies import Policy, PolicyKind
from tests.integration.generation.fake_engine import FakeEngine, Served, served

CAMPAIGN = UUID(int=7)


def write_weights(directory: Path, name: str, *, rows: int = 2, adapter: bool = False) -> Path:
    """A directory with one well-formed safetensors file, whose engine calls itself `name`."""
    directory.mkdir(parents=True)
    tensors = {"layer.weight": {"dtype": "F32", "shape": [rows, 2], "data_offsets": [0, rows * 8]}}
    header = json.dumps(tensors).encode()
    data = len(header).to_bytes(8, "little") + header + bytes(rows * 8)
    (directory / ("adapter_model.safetensors" if adapter else "model.safetensors")).write_bytes(data)
    (directory / ("adapter_config.json" if adapter else "config.json")).write_text("{}")
    (directory / "NAME").write_text(name)
    return directory


@dataclass
class World:
    """A running generation service. `engine` is what it talks to."""

    http: httpx.AsyncClient
    engine: FakeEngine
    engine_server: Served
    directory: Path

    async def register(self, name: str, kind: PolicyKind, base: Policy | None = None, **fields: object) -> Policy:
        """Register weights that call themselves `name`."""
        directory = self.directory / name
        if not directory.exists():
            write_weights(directory, name, adapter=kind is PolicyKind.ADAPTER)
        body: dict[str, object] = {"campaign_id": str(CAMPAIGN), "name": name, "kind": kind, "uri": str(directory)}
        body |= {"content_hash": hash_directory(directory), "base_policy_id": str(base.id) if base else None, **fields}
        response = await self.http.post("/v1/policies", json=body)
        assert response.is_success, response.text
        return Policy.model_validate_json(response.content)

    async def sample(self, policy: Policy, *prompts: str, n: int = 1, **fields: object) -> dict[str, PromptSamples]:
        """The lines of a sample request by prompt id; prompt ids are the prompts."""
        asked = [{"id": prompt, "text": prompt} for prompt in prompts]
        body = {"policy_id": str(policy.id), "n": n, "prompts": asked, **fields}
        response = await self.http.post("/v1/samples", json=body)
        assert response.status_code == httpx.codes.OK, response.text
        lines = [PromptSamples.model_validate_json(line) for line in response.text.splitlines()]
        assert sorted(line.id for line in lines) == sorted(prompts)
        return {line.id: line for line in lines}

    async def text(self, policy: Policy) -> str:
        """What the policy says."""
        line = (await self.sample(policy, "hi"))["hi"]
        assert line.error is None, line
        return line.samples[0].text

    async def until_ready(self) -> None:
        """Returns when the engine is ready."""
        while (await self.http.get("/v1/engine")).json()["ready_replicas"] < 1:
            await asyncio.sleep(0.02)


@pytest.fixture
def overrides() -> dict[str, object]:
    """Settings that a test wants otherwise; parametrize it."""
    return {}


@pytest_asyncio.fixture
async def world(database_url: str, tmp_path: Path, overrides: dict[str, object]) -> AsyncIterator[World]:
    """Everything running, the engine ready."""
    base = write_weights(tmp_path / "base", "base")
    engine = FakeEngine(str(base))
    async with served(engine.app) as engine_server:
        settings = make_settings(database_url, engine_server.url, base, tmp_path, overrides)
        async with (
            served(create_app(settings)) as api,
            httpx.AsyncClient(base_url=api.url, timeout=30, trust_env=False) as http,
        ):
            world = World(http, engine, engine_server, tmp_path)
            await world.until_ready()
            yield world
            engine.hold.set()


def make_settings(
    database_url: str, engine_url: str, base: Path, directory: Path, overrides: dict[str, object]
) -> GenerationSettings:
    """Short waits, so that a test of a dead engine is short."""
    fields: dict[str, object] = {
        "database_url": database_url,
        "engine_urls": engine_url,
        "engine_model": str(base),
        "artifacts_url": str(directory),
        "weights_cache": directory / "cache",
        "engine_probe_every_s": 0.05,
        "engine_wait_s": 1.0,
        "service_token": "",
    }
    return GenerationSettings.model_validate(fields | overrides)


def new_id() -> str:
    """Any id."""
    return str(uuid4())
