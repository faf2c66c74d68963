"""The same service against a real vLLM server on the CPU with the tiny model: what the stand-in engine takes for granted.

Takes minutes and 4 GB: `HEADWATER_TEST_ENGINE=1 pytest -m e2e tests/integration/generation`.
"""

import asyncio
import math
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from services.generation.main import create_app
from services.local import engine
from services.local.engine import EngineModel
from services.training.tiny import make_tiny_model
from shared.artifacts import hash_directory
from shared.contracts.base import unpack_float32, unpack_int32
from shared.contracts.generation import PromptSamples
from shared.contracts.policies import Policy, PolicyKind
from tests.integration.generation.conftest import CAMPAIGN, make_settings
from tests.integration.generation.fake_engine import served

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not os.environ.get("HEADWATER_TEST_ENGINE"), reason="opt in with HEADWATER_TEST_ENGINE=1"),
]


EXTENSION = ("--worker-extension-cls", "services.generation.engine_extension.EngineExtension")


class Engine:
    """A real vLLM process, in a process group of its own."""

    def __init__(self, model: Path, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._model = EngineModel("tiny", str(model), dtype="float32", context_tokens=512)
        self._log = directory / "engine.log"
        self.start()

    def start(self) -> None:
        """Start it again on the same port."""
        environment = {**os.environ, **engine.environment(self._model), **engine.OFFLINE}
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [*engine.command(self._model, self.port), *EXTENSION],
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )

    def kill(self) -> None:
        """kill -9 of all its processes."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def make_adapter(base: Path, directory: Path, seed: int) -> Path:
    """A random LoRA adapter over all linear layers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(directory)
    return directory


def expected_logprobs(base: Path, adapter: Path | None, token_ids: list[int], answer: list[int]) -> list[float]:
    """log pi of each token of `answer` after the prompt, by transformers."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    with torch.no_grad():
        logits_T_V = model(torch.tensor([token_ids + answer])).logits[0].float()
    logprobs_T_V = torch.log_softmax(logits_T_V, dim=-1)
    return [float(logprobs_T_V[len(token_ids) - 1 + index, token]) for index, token in enumerate(answer)]


@pytest_asyncio.fixture
async def real(database_url: str, tmp_path: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Engine, Path]]:
    """The API, the engine, and the base model's directory."""
    base = tmp_path / "base"
    make_tiny_model(base, seed=0)
    process = Engine(base, tmp_path)
    settings = make_settings(database_url, f"http://127.0.0.1:{process.port}", base, tmp_path, {"engine_wait_s": 30})
    try:
        async with (
            served(create_app(settings)) as api,
            httpx.AsyncClient(base_url=api.url, timeout=300, trust_env=False) as http,
        ):
            await until_ready(http, 1)
            yield http, process, base
    finally:
        process.kill()


async def until_ready(http: httpx.AsyncClient, replicas: int) -> None:
    while (await http.get("/v1/engine")).json()["ready_replicas"] != replicas:
        await asyncio.sleep(0.5)


async def register(http: httpx.AsyncClient, name: str, kind: PolicyKind, weights: Path, base: Policy | None) -> Policy:
    body: dict[str, object] = {"campaign_id": str(CAMPAIGN), "name": name, "kind": kind, "uri": str(weights)}
    body |= {"content_hash": hash_directory(weights), "base_policy_id": str(base.id) if base else None}
    response = await http.post("/v1/policies", json=body)
    assert response.is_success, response.text
    return Policy.model_validate_json(response.content)


async def sample(http: httpx.AsyncClient, policy: Policy, n: int = 4) -> list[PromptSamples]:
    prompts = [{"id": str(index), "text": f"Calculate {index} + {index}."} for index in range(6)]
    body = {"policy_id": str(policy.id), "prompts": prompts, "n": n, "sampling": {"max_tokens": 40}}
    response = await http.post("/v1/samples", json=body)
    assert response.status_code == httpx.codes.OK, response.text
    return [PromptSamples.model_validate_json(line) for line in response.text.splitlines()]


def check(line: PromptSamples, base: Path, adapter: Path | None) -> None:
    """The log-probabilities are those of these very weights, and the offsets tile the text."""
    assert line.error is None, line
    prompt = unpack_int32(line.prompt_token_ids)
    for item in line.samples:
        tokens, ends = unpack_int32(item.token_ids), unpack_int32(item.token_ends)
        logprobs = unpack_float32(item.logprobs)
        assert len(tokens) == len(logprobs) == len(ends) > 0
        assert ends == sorted(ends)
        assert ends[-1] == len(item.text)
        expected = expected_logprobs(base, adapter, prompt, tokens)
        assert all(math.isclose(a, b, abs_tol=2e-3) for a, b in zip(logprobs, expected, strict=True)), (
            logprobs,
            expected,
        )


async def test_a_real_engine_samples_each_policy_from_its_own_weights(
    real: tuple[httpx.AsyncClient, Engine, Path], tmp_path: Path
) -> None:
    http, process, base = real
    other = tmp_path / "other"
    make_tiny_model(other, seed=1)
    broken = tmp_path / "broken"
    make_tiny_model(broken, seed=2, hidden_size=96)
    base_policy = await register(http, "base", PolicyKind.BASE, base, None)
    other_policy = await register(http, "other", PolicyKind.CHECKPOINT, other, None)
    base_adapter, other_adapter = make_adapter(base, tmp_path / "l0", 3), make_adapter(other, tmp_path / "l1", 4)
    over_base = await register(http, "l0", PolicyKind.ADAPTER, base_adapter, base_policy)
    over_other = await register(http, "l1", PolicyKind.ADAPTER, other_adapter, other_policy)
    # As many adapters as the engine has slots, sampled beside the base: vLLM's own CPU layers give the base the last slot's.
    full = {}
    for seed in range(5, 8):
        adapter = make_adapter(base, tmp_path / f"full{seed}", seed)
        full[await register(http, f"full{seed}", PolicyKind.ADAPTER, adapter, base_policy)] = adapter
    await asyncio.gather(*(sample(http, policy) for policy in (*full, over_base)))
    weights = {
        **{policy.id: (base, adapter) for policy, adapter in full.items()},
        base_policy.id: (base, None),
        over_base.id: (base, base_adapter),
        other_policy.id: (other, None),
        over_other.id: (other, other_adapter),
    }
    policies = (*full, base_policy, over_base, other_policy, over_other)
    answers = await asyncio.gather(*(sample(http, policy) for policy in policies))
    for policy, lines in zip(policies, answers, strict=True):
        for line in lines:
            check(line, *weights[policy.id])

    misfit = {"campaign_id": str(CAMPAIGN), "name": "broken", "kind": "checkpoint", "uri": str(broken)}
    refused = await http.post("/v1/policies", json=misfit | {"content_hash": hash_directory(broken)})
    assert refused.json()["error"]["code"] == "architecture_mismatch"

    huge = make_adapter(base, tmp_path / "huge", 5)
    config = (huge / "adapter_config.json").read_text()
    (huge / "adapter_config.json").write_text(config.replace('"r": 8', '"r": 4096'))
    too_big = await register(http, "huge", PolicyKind.ADAPTER, huge, base_policy)
    unloadable = await http.post(f"/v1/policies/{too_big.id}/live")
    assert (unloadable.status_code, unloadable.json()["error"]["code"]) == (409, "policy_not_loadable")
    for line in await sample(http, over_base):
        check(line, *weights[over_base.id])

    chat = {"model": "l0", "messages": [{"role": "user", "content": "1 + 1"}], "max_tokens": 5, "stream": True}
    events = (await http.post("/v1/chat/completions", json=chat)).text
    assert '"model": "l0"' in events
    assert events.rstrip().endswith("data: [DONE]")

    process.kill()
    await until_ready(http, 0)
    process.start()
    await until_ready(http, 1)
    assert (await http.get(f"/v1/policies/{over_base.id}")).json()["live"]
    for policy in policies:
        for line in await sample(http, policy):
            check(line, *weights[policy.id])
