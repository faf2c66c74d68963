"""HTTP to one vLLM server: its OpenAI endpoints, run-time LoRA loading, and the development endpoints that replace weights.

The engine carries a label of its full weights (`/weight_info`), which this service sets. A restarted engine says
`default`, so one cheap call tells whether it lives, whether it restarted, and what it holds.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from services.generation.client.choice import Choice, read_choices
from services.generation.client.engine_errors import EngineDownError, EngineRefusedError, raise_refusal, understood
from services.generation.client.transfer import Transfer, TransferFailedError
from shared.contracts.generation import SamplingParameters

BASE_MODEL = "base"
PROBE_TIMEOUT_S = 10.0
CONTROL_TIMEOUT_S = 30.0
_TOKENS_DONE = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")


@dataclass(frozen=True)
class ServedModels:
    """What the engine lists: adapters as (name, directory), and the longest prompt plus answer it takes."""

    adapters: tuple[tuple[str, Path], ...]
    max_model_tokens: int


class EngineClient:
    """One engine replica. Every call has a deadline; a cancelled call closes its connection, which aborts it in the engine."""

    def __init__(
        self,
        url: str,
        connections: int,
        transfer: Transfer | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url
        self._transfer = transfer
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=connections)
        self._http = httpx.AsyncClient(
            base_url=url, timeout=CONTROL_TIMEOUT_S, limits=limits, transport=transport, trust_env=False
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def label(self) -> str:
        """The label of the full weights; doubles as the liveness probe."""
        return str((await self._json("GET", "/weight_info", timeout=PROBE_TIMEOUT_S)).get("weight_version", ""))

    async def tokens_done(self) -> float:
        """How many tokens it read and wrote since it started: what moves as long as it works."""
        text = (await self._call("GET", "/metrics", timeout=PROBE_TIMEOUT_S)).text
        lines = (line for line in text.splitlines() if line.startswith(_TOKENS_DONE))
        with understood("/metrics"):
            return sum(float(line.rpartition(" ")[2]) for line in lines)

    async def set_label(self, label: str) -> None:
        """Say what the full weights are."""
        await self._call("POST", "/update_weight_version", json={"new_version": label})

    async def served(self) -> ServedModels:
        """The adapters it holds and its context length."""
        answer = await self._json("GET", "/v1/models", timeout=PROBE_TIMEOUT_S)
        with understood("/v1/models"):
            models = answer["data"]
            adapters = tuple((str(model["id"]), Path(model["root"])) for model in models if model["parent"] is not None)
            lengths = [int(model["max_model_len"]) for model in models if model["id"] == BASE_MODEL]
        if not lengths:
            raise EngineRefusedError(f"it serves no model called {BASE_MODEL}; start it with --served-model-name", 404)
        return ServedModels(adapters, lengths[0])

    async def pause(self, timeout_s: float) -> None:
        """Finish what runs and take nothing new."""
        await self._call("POST", "/pause", params={"mode": "wait"}, timeout=timeout_s)

    async def resume(self) -> None:
        """Take requests again; harmless when it was not paused."""
        await self._call("POST", "/resume")

    async def reload_weights(self, directory: Path, timeout_s: float) -> None:
        """Replace the full weights in place, by files or, with a `transfer`, over NCCL.

        After a refusal it must not run before a later reload succeeds.
        """
        if self._transfer is not None:
            try:
                await self._transfer.send(self.url, directory, timeout_s)
            except TransferFailedError as error:
                # No fault of the weights: the gate takes what the engine holds as unknown, and the next request loads again.
                raise EngineDownError(f"No weights reached the engine at {self.url} over NCCL: {error}") from error
            return
        weights = {"weights_path": str(directory)}
        if not await self._mended("reload_checkpoint", weights, timeout_s):
            await self._rpc("reload_weights", weights, timeout_s)

    async def _mended(self, method: str, arguments: dict[str, str], timeout_s: float) -> bool:
        """Call a method of `engine_extension`; False when the engine has no extension and, not on the CPU, needs none."""
        try:
            await self._rpc(method, arguments, timeout_s)
        except EngineRefusedError as error:
            if "no attribute" not in error.reason:
                raise
            if "device_config=cpu" not in str((await self._json("GET", "/server_info")).get("vllm_config")):
                return False
            sentence = (
                "vLLM on the CPU replaces weights only in part and mixes up adapters by itself; start it with "
                "--worker-extension-cls services.generation.engine_extension.EngineExtension"
            )
            raise EngineRefusedError(sentence, error.status) from error
        return True

    async def _rpc(self, method: str, arguments: dict[str, str], timeout_s: float) -> None:
        await self._call("POST", "/collective_rpc", json={"method": method, "kwargs": arguments}, timeout=timeout_s)

    async def reset_prefix_cache(self) -> None:
        """Forget what was computed with the old weights."""
        answer = await self._json("POST", "/reset_prefix_cache")
        if not answer.get("success", True):
            raise EngineRefusedError("the prefix cache could not be reset", 500)

    async def load_adapter(self, name: str, directory: Path, timeout_s: float) -> None:
        """Load a LoRA adapter; one that is loaded already is fine."""
        await self._mended("group_adapters", {}, timeout_s)
        try:
            body = {"lora_name": name, "lora_path": str(directory)}
            await self._call("POST", "/v1/load_lora_adapter", json=body, timeout=timeout_s)
        except EngineRefusedError as error:
            if error.status != httpx.codes.BAD_REQUEST or "already been loaded" not in error.reason:
                raise

    async def unload_adapter(self, name: str) -> None:
        """Unload a LoRA adapter; one that is not there is fine."""
        try:
            await self._call("POST", "/v1/unload_lora_adapter", json={"lora_name": name})
        except EngineRefusedError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise

    async def prompt_token_ids(self, text: str) -> tuple[int, ...]:
        """A user message in the model's own chat template, as tokens."""
        body = {"model": BASE_MODEL, "messages": [{"role": "user", "content": text}], "add_generation_prompt": True}
        answer = await self._json("POST", "/tokenize", json=body)
        with understood("/tokenize"):
            return tuple(int(token) for token in answer["tokens"])

    async def complete(
        self, model: str, prompt_token_ids: Sequence[int], n: int, sampling: SamplingParameters, timeout_s: float
    ) -> tuple[Choice, ...]:
        """`n` answers with token ids and the log-probabilities of the sampled tokens.

        Every parameter is sent, so that no default of the model's own generation config changes the distribution.
        No seed: one on a partially prefilled request kills the CPU engine. Special tokens and what an answer
        stops at stay in the text, so that the token strings tile it.
        """
        body: dict[str, Any] = {
            "model": model,
            "prompt": list(prompt_token_ids),
            "n": n,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "logprobs": 0,
            "return_token_ids": True,
            "skip_special_tokens": False,
        }
        if sampling.stop:
            body |= {"stop": list(sampling.stop), "include_stop_str_in_output": True}
        answer = await self._json("POST", "/v1/completions", json=body, timeout=timeout_s)
        with understood("/v1/completions"):
            return read_choices(answer)

    async def pass_on(self, endpoint: str, body: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """One whole completion of OpenAI's API (`chat/completions`, `completions`), body and answer as they are."""
        answer = await self._json("POST", f"/v1/{endpoint}", json=body, timeout=timeout_s)
        with understood(f"/v1/{endpoint}"):
            json.dumps(answer, allow_nan=False, ensure_ascii=False).encode()  # what cannot be passed on is no answer
        return answer

    @asynccontextmanager
    async def pass_on_stream(
        self, endpoint: str, body: dict[str, Any], timeout_s: float
    ) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of a streamed one. Raises, also between lines: EngineDownError; at first: EngineRefusedError."""
        try:
            request = self._http.stream("POST", f"/v1/{endpoint}", json=body, timeout=timeout_s)
            async with request as response:
                if not response.is_success:
                    await response.aread()
                    raise_refusal(response)
                yield self._lines(response)
        except httpx.RequestError as error:
            raise self._down(error) from error

    async def _lines(self, response: httpx.Response) -> AsyncIterator[str]:
        try:
            async for line in response.aiter_lines():
                yield line
        except httpx.RequestError as error:
            raise self._down(error) from error

    async def _json(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        response = await self._call(method, path, **request)
        with understood(path):
            answer = response.json()
        if not isinstance(answer, dict):
            raise EngineRefusedError(f"{path} answered no JSON object", 502)
        return answer

    async def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        """One call within `timeout` seconds in all. Raises EngineDownError, EngineRefusedError."""
        timeout_s = float(request.pop("timeout", CONTROL_TIMEOUT_S))
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._http.request(method, path, timeout=timeout_s, **request)
        except httpx.RequestError as error:
            raise self._down(error) from error
        except TimeoutError as error:
            raise EngineDownError(
                f"The engine at {self.url} did not answer {path} within {timeout_s:.0f} s."
            ) from error
        if not response.is_success:
            raise_refusal(response)
        return response

    def _down(self, error: httpx.RequestError) -> EngineDownError:
        return EngineDownError(f"The engine at {self.url} does not answer ({type(error).__name__}).")
