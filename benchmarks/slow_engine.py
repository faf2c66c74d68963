"""A stand-in for vLLM whose answers take long-tailed times of sleep and no processor: the endpoints that generation uses.

It answers sums, half of them right, in the trajectory format and in tokens of the tiny policy; every token has the log-probability of a
policy that knows nothing. An answer holds one of `HEADWATER_SLOW_SEATS` seats for a log-normal time, drawn apart from its length; a
request of n answers is over with its last one. `PUT /latency` says how long the median is.
"""

import asyncio
import math
import os
import random
from typing import Any

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response
from tokenizers import Tokenizer

from services.training.tiny import ASSISTANT, END, USER
from shared.trajectories.domains.arithmetic import solve
from shared.trajectories.segments import Round, assemble


class SlowEngine:
    """One engine. `median_s` and `sigma` are of the log-normal seconds of an answer."""

    def __init__(self, model: str, seats: int, sigma: float) -> None:
        self._tokenizer: Any = Tokenizer.from_file(f"{model}/tokenizer.json")
        self._model, self._sigma, self.median_s = model, sigma, 0.0
        self._seats = asyncio.Semaphore(seats)
        self._random = random.Random(0)
        self._adapters: dict[str, str] = {}
        self._label, self._tokens = "default", 0

    def app(self) -> FastAPI:
        """Its routes."""
        app = FastAPI()
        app.get("/health")(self._health)
        app.get("/weight_info")(lambda: {"weight_version": self._label})
        app.get("/server_info")(lambda: {"vllm_config": "device_config=cpu"})
        app.get("/metrics")(lambda: PlainTextResponse(f"vllm:generation_tokens_total {self._tokens}\n"))
        app.get("/v1/models")(self._models)
        app.post("/update_weight_version")(self._set_label)
        # Its weights are in its answers' times only, so that there is nothing to replace.
        for path in ("/pause", "/resume", "/collective_rpc", "/reset_prefix_cache"):
            app.post(path)(lambda: {"results": [None]})
        app.post("/v1/load_lora_adapter")(self._load)
        app.post("/v1/unload_lora_adapter")(self._unload)
        app.post("/tokenize")(self._tokenize)
        app.post("/v1/completions")(self._complete)
        app.put("/latency")(self._set_latency)
        return app

    async def _health(self) -> None:
        """It is there."""

    async def _models(self) -> dict[str, Any]:
        base = {"id": "base", "parent": None, "root": self._model, "max_model_len": 1024}
        loaded = ({"id": name, "parent": "base", "root": root} for name, root in self._adapters.items())
        return {"data": [base, *loaded]}

    async def _set_label(self, body: dict[str, str]) -> None:
        self._label = body["new_version"]

    async def _set_latency(self, body: dict[str, float]) -> None:
        self.median_s = body["median_s"]

    async def _load(self, body: dict[str, str]) -> Response:
        self._adapters[body["lora_name"]] = body["lora_path"]
        return Response()

    async def _unload(self, body: dict[str, str]) -> Response:
        return Response(status_code=200 if self._adapters.pop(body["lora_name"], None) else 404)

    async def _tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = f"{USER}{body['messages'][0]['content']}{ASSISTANT}"
        return {"tokens": self._tokenizer.encode(asked, add_special_tokens=False).ids}

    async def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        question = self._tokenizer.decode(body["prompt"], skip_special_tokens=True)
        return {"choices": await asyncio.gather(*(self._answer(question, index) for index in range(body["n"])))}

    async def _answer(self, question: str, index: int) -> dict[str, Any]:
        async with self._seats:
            await asyncio.sleep(self.median_s * math.exp(self._sigma * self._random.gauss(0.0, 1.0)))
        text = self._trajectory(question)
        written = self._tokenizer.encode(text + END, add_special_tokens=False)
        self._tokens += len(written.ids)
        logprobs = [-math.log(self._tokenizer.get_vocab_size())] * len(written.ids)
        return {
            "index": index,
            "text": text,
            "finish_reason": "stop",
            "token_ids": written.ids,
            "logprobs": {"tokens": written.tokens, "token_logprobs": logprobs},
        }

    def _trajectory(self, question: str) -> str:
        """The worked solution, or one whose last number is off, checked in one to three rounds of the same attempt."""
        solution = solve(question)
        if solution is None:
            raise ValueError(f"no sum: {question!r}")
        body, _, answer = solution.rpartition("\\boxed{")
        is_right = self._random.random() < 0.5
        attempt = solution if is_right else f"{body}\\boxed{{{int(answer.rstrip('}')) + 1}}}"
        rounds = self._random.choice((1, 1, 2, 3))
        said = [*["incorrect"] * (rounds - 1), "correct"]
        return assemble([Round(attempt, f"Therefore, the answer is {verdict}.") for verdict in said]).text


def create_app() -> FastAPI:
    """The engine that the environment names."""
    model, seats = os.environ["HEADWATER_ENGINE_MODEL"], int(os.environ["HEADWATER_SLOW_SEATS"])
    return SlowEngine(model, seats, float(os.environ["HEADWATER_SLOW_SIGMA"])).app()
