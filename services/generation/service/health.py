"""Whether one engine lives: probes, what counts as stuck, and giving up the work of those who would wait for ever."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from services.generation.client.engine import EngineClient
from services.generation.client.engine_errors import EngineDownError, EngineRefusedError
from services.generation.metrics import REPLICA_READY
from services.generation.service.loading import Loading
from services.generation.service.prompts import Prompts
from services.generation.settings import GenerationSettings

log = logging.getLogger(__name__)
T = TypeVar("T")


class Health:
    """`ready`: takes traffic, else there is a `reason`. `failures`: of requests, since the last that it answered."""

    def __init__(self, client: EngineClient, loading: Loading, prompts: Prompts, settings: GenerationSettings) -> None:
        self.ready = False
        self.reason = "it has not answered yet"
        self.failures = 0
        self.suspected = asyncio.Event()
        self._client = client
        self._loading = loading
        self._prompts = prompts
        self._settings = settings
        self._at_work: set[asyncio.Future[Any]] = set()
        self._given_up: set[asyncio.Future[Any]] = set()
        self._answered_at = self._moved_at = time.monotonic()
        self._tokens_done = 0.0

    async def while_up(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work in the engine, unless the engine is given up meanwhile. Raises: EngineDownError, what `work` raises."""
        task = asyncio.ensure_future(work)
        self._at_work.add(task)
        try:
            result = await task
        except asyncio.CancelledError:
            if task in self._given_up:
                raise EngineDownError(f"The engine at {self._client.url} was given up: {self.reason}") from None
            task.cancel()
            raise
        finally:
            self._at_work.discard(task)
            self._given_up.discard(task)
        self.failures = 0
        return result

    async def probe(self) -> None:
        """Look at the engine; after a restart it gets its policies again before `ready` is set."""
        before = self._loading.label
        try:
            label = await self._client.label()
            self._answered_at = time.monotonic()
            if self._loading.is_switching or before != self._loading.label:
                self._moved_at = self._answered_at
                return
            if label != self._loading.label or not self.ready:
                await self._adopt(label)
            elif await self._is_stalled():
                self.failures += 1
                self.mark_down(
                    f"it has {len(self._at_work)} prompts and worked on none for {self._settings.engine_stall_s:.0f} s"
                )
                self._give_up()
        except EngineDownError as error:
            self.mark_down(str(error))
            if time.monotonic() - self._answered_at >= self._settings.engine_abort_s:
                self._give_up()
        except EngineRefusedError as error:
            self.mark_down(
                f"The engine at {self._client.url} refused a control call ({error.reason}); "
                "start it with VLLM_SERVER_DEV_MODE=1 and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True."
            )

    async def _is_stalled(self) -> bool:
        """Whether it has prompts and has not worked on any for too long."""
        tokens_done, now = await self._client.tokens_done(), time.monotonic()
        if tokens_done != self._tokens_done or not self._at_work or self._loading.is_loading_adapter:
            self._tokens_done, self._moved_at = tokens_done, now
        return now - self._moved_at >= self._settings.engine_stall_s

    def _give_up(self) -> None:
        """Whoever waits for an answer is told that there will be none."""
        self._given_up |= self._at_work
        for task in self._at_work:
            task.cancel()

    def mark_down(self, reason: str) -> None:
        """No traffic until a probe succeeds."""
        if self.ready:
            log.warning("engine %s is down: %s", self._client.url, reason)
        self.ready = False
        self.reason = reason
        REPLICA_READY.labels(self._client.url).set(0)

    async def _adopt(self, label: str) -> None:
        if label != self._loading.label:
            self._prompts.forget()
        await self._loading.adopt(label)
        log.info("engine %s is ready (holds %s)", self._client.url, label)
        self.ready = True
        self._moved_at = time.monotonic()
        self.reason = ""
        REPLICA_READY.labels(self._client.url).set(1)
