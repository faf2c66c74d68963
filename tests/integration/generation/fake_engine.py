"""A stand-in for vLLM's HTTP server: the endpoints that generation uses, over a model that writes its weights' name.

The answer of a request is made from the weights that are resident when it *ends*, so that a switch under a running request
is seen. Everything that the real engine is strict about is strict here: unknown adapters, a pause that waits.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse


def read_name(directory: str) -> str:
    """What the weights in a directory call themselves."""
    return (Path(directory) / "NAME").read_text()


class FakeEngine:
    """One engine. `hold` keeps completions running until it is set; `broken` are directories that it cannot load."""

    def __init__(self, started_with: str) -> None:
        self.started_with = started_with
        self.hold = asyncio.Event()
        self.hold.set()
        self.broken: set[str] = set()
        self.methods = {"reload_checkpoint", "reload_weights", "group_adapters"}
        self.device = "cpu"
        self.slow_s = 0.0
        self.reset()
        self.completions = 0
        self.aborted = 0
        self.reloads: list[str] = []
        self.app = self._app()

    def reset(self) -> None:
        """A restart."""
        self.label = "default"
        self.grouped = False
        self.resident = self.started_with
        self.adapters: dict[str, str] = {}
        self.running = 0
        self.tokens = 0.0
        self.idle = asyncio.Event()
        self.idle.set()
        self.unpaused = asyncio.Event()
        self.unpaused.set()

    def _app(self) -> FastAPI:
        app = FastAPI()
        app.get("/weight_info")(lambda: {"weight_version": self.label})
        app.get("/server_info")(lambda: {"vllm_config": f"device_config={self.device}"})
        app.get("/v1/models")(self._models)
        app.get("/metrics")(self._metrics)
        app.post("/update_weight_version")(self._set_label)
        app.post("/pause")(self._pause)
        app.post("/resume")(self._resume)
        app.post("/collective_rpc")(self._call)
        app.post("/reset_prefix_cache")(lambda: {"success": True})
        app.post("/v1/load_lora_adapter")(self._load)
        app.post("/v1/unload_lora_adapter")(self._unload)
        app.post("/tokenize")(self._tokenize)
        app.post("/v1/completions")(self._complete)
        app.post("/v1/chat/completions")(self._chat)
        return app

    async def _metrics(self) -> Response:
        return PlainTextResponse(f'vllm:generation_tokens_total{{engine="0"}} {self.tokens}\n')

    async def _models(self) -> dict[str, Any]:
        base = {"id": "base", "parent": None, "root": self.started_with, "max_model_len": 64}
        return {"data": [base, *({"id": n, "parent": "base", "root": r} for n, r in self.adapters.items())]}

    async def _set_label(self, body: dict[str, str]) -> None:
        self.label = body["new_version"]

    async def _pause(self) -> None:
        self.unpaused.clear()
        await self.idle.wait()

    async def _resume(self) -> None:
        self.unpaused.set()

    async def _call(self, body: dict[str, Any]) -> Response:
        if body["method"] not in self.methods:
            return _refusal(500, f"'Worker' object has no attribute '{body['method']}'")
        if body["method"] == "group_adapters":
            self.grouped = True
            return JSONResponse({"results": ["grouped"]})
        directory = body["kwargs"]["weights_path"]
        assert body["method"] == "reload_checkpoint" or self.device != "cpu", "half of the weights would stay"
        assert not self.unpaused.is_set(), "weights are replaced in a paused engine only"
        assert not self.adapters, "adapters are unloaded before their base goes"
        self.reloads.append(directory)
        if directory in self.broken:
            self.resident = "half-replaced"
            return _refusal(500, "Worker failed with error 'shapes'")
        await asyncio.sleep(0)
        self.resident = directory
        return JSONResponse({"results": [None]})

    async def _load(self, body: dict[str, str]) -> Response:
        name, directory = body["lora_name"], body["lora_path"]
        assert self.grouped or self.device != "cpu", "adapters would be mixed up"
        if name in self.adapters:
            return _refusal(400, f"The lora adapter '{name}' has already been loaded.")
        if directory in self.broken:
            return _refusal(500, "Call to add_lora method failed")
        self.adapters[name] = directory
        return Response()

    async def _unload(self, body: dict[str, str]) -> Response:
        if self.adapters.pop(body["lora_name"], None) is None:
            return _refusal(404, "cannot be found")
        return Response()

    async def _tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        assert body["add_generation_prompt"]
        return {"tokens": [3, *(ord(character) for character in body["messages"][0]["content"]), 4]}

    def _speaks(self, model: str) -> str:
        """What answers of this model say: the resident weights, and the adapter over them."""
        said = read_name(self.resident) if self.resident != "half-replaced" else "noise"
        return said if model == "base" else f"{said}+{read_name(self.adapters[model])}"

    async def _complete(self, request: Request) -> Response:
        body = json.loads(await request.body())
        if body["model"] != "base" and body["model"] not in self.adapters:
            return _refusal(404, f"The model `{body['model']}` does not exist.")
        assert "seed" not in body
        await self.unpaused.wait()
        self.completions += 1
        self.running += 1
        self.idle.clear()
        try:
            if body["prompt"][1:5] == [ord(character) for character in "slow"]:
                await asyncio.sleep(self.slow_s * (1 + self.completions % 4))
            if await self._is_left(request):
                return Response()
            return JSONResponse(
                {"choices": [self._choice(i, self._speaks(body["model"])) for i in range(body.get("n", 1))]}
            )
        finally:
            self.running -= 1
            if not self.running:
                self.idle.set()

    async def _is_left(self, request: Request) -> bool:
        """Wait for `hold`; True when the client left before."""
        while not self.hold.is_set():
            if await request.is_disconnected():
                self.aborted += 1
                return True
            await asyncio.sleep(0.01)
        return False

    def _choice(self, index: int, text: str) -> dict[str, Any]:
        tokens = [*text, "<end>"]
        return {
            "index": index,
            "text": text,
            "finish_reason": "stop",
            "token_ids": [*(ord(character) for character in text), 1],
            "logprobs": {"tokens": tokens, "token_logprobs": [-0.5] * len(tokens)},
        }

    async def _chat(self, body: dict[str, Any], request: Request) -> Any:
        if body.get("stream"):
            return StreamingResponse(self._events(body["model"]), media_type="text/event-stream")
        self.running += 1
        try:
            if await self._is_left(request):
                return Response()
        finally:
            self.running -= 1
        message = {"role": "assistant", "content": self._speaks(body["model"])}
        return {"model": body["model"], "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    async def _events(self, model: str) -> AsyncIterator[str]:
        """The first character, and after `hold` the others."""
        self.running += 1
        try:
            for position, character in enumerate(self._speaks(model)):
                choice = {"index": 0, "delta": {"content": character}, "finish_reason": None}
                event = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": model}
                yield f"data: {json.dumps(event | {'choices': [choice]})}\n\n"
                if not position:
                    await asyncio.sleep(8 * self.slow_s)
                    await self.hold.wait()
            yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        finally:
            self.running -= 1


def _refusal(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message}}, status_code=status)


class Served:
    """An ASGI application behind a real socket of this machine, in this event loop."""

    def __init__(self, app: Any, port: int = 0) -> None:
        self._server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when it accepts connections."""
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            await asyncio.sleep(0.01)
            assert not self._task.done()

    async def stop(self) -> None:
        """Close at once, running requests too."""
        assert self._task is not None
        self._server.should_exit = True
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        await self._task

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.servers[0].sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[Served]:
    """Serve for as long as the block runs."""
    server = Served(app)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def main(weights: str, port: int) -> None:
    """The stand-in as a process: it says its port; a prompt that begins with `slow` takes its time."""
    engine = FakeEngine(weights)
    engine.slow_s = 0.4
    server = Served(engine.app, port)
    await server.start()
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
