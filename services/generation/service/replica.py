"""One engine replica: what it holds, and sampling on exactly the weights that were asked for.

The engine itself carries the label `<content hash>.<nonce>` of its full weights, set by the switch that loaded them and
unique to it. A request remembers the label it started under, and its answer counts only if the engine still has that
label afterwards: a restart, a crash in a switch, or somebody else's switch can never pass off other weights. So nothing
is stored, and this service may restart at any time.
"""

import asyncio
import logging
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from services.generation.client.engine import BASE_MODEL, EngineClient
from services.generation.client.engine_errors import EngineDownError, EngineRefusedError
from services.generation.metrics import REPLICA_LOAD, REPLICA_READY, SWITCHES
from services.generation.service.gate import ResidencyGate, SwitchFailedError
from services.generation.service.prompts import Prompts
from services.generation.service.shared_call import Shared
from services.generation.settings import GenerationSettings
from shared.contracts.generation import SamplingParameters
from shared.errors import ConflictError

log = logging.getLogger(__name__)

LOADING = "loading"
T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """What a policy needs of an engine: full weights, and perhaps an adapter over them. Directories are verified."""

    policy_id: str
    policy_name: str
    base_hash: str
    base_directory: Path
    adapter_directory: Path | None


@dataclass(frozen=True)
class Serving:
    """A hold on a replica: the engine's model name of the policy, and the label under which answers count."""

    model: str
    label: str


class ReplacedError(Exception):
    """The engine's weights changed under a request: its answer does not count."""


class Replica:
    """One engine. `load`: prompts that run or wait here; `failures`: of them, since the last that it answered."""

    def __init__(self, client: EngineClient, settings: GenerationSettings) -> None:
        self.client = client
        self.ready = False
        self.reason = "it has not answered yet"
        self.max_model_tokens = 0
        self.load = 0
        self.failures = 0
        self.suspected = asyncio.Event()
        self._slots = asyncio.Semaphore(settings.prompts_in_flight)
        self.gate = ResidencyGate(self._switch)
        self._settings = settings
        self._label = ""
        self._directories: dict[str, Path] = {}
        self._last_base = ""
        self._adapters: OrderedDict[str, Path] = OrderedDict()
        self._adapter_users: Counter[str] = Counter()
        self._adapter_lock = asyncio.Lock()
        self.prompts = Prompts(client)
        self._labels = Shared(client.label)
        self._at_work: set[asyncio.Future[Any]] = set()
        self._given_up: set[asyncio.Future[Any]] = set()
        self._answered_at = self._moved_at = time.monotonic()
        self._tokens_done = 0.0

    # -- what it holds

    def holds(self, base_hash: str, adapter_id: str | None) -> bool:
        """Whether the policy could be sampled here at once."""
        return self.ready and self.gate.resident == base_hash and (adapter_id is None or adapter_id in self._adapters)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Room for one prompt, waiting for it in turn."""
        self._count(+1)
        try:
            async with self._slots:
                yield
        finally:
            self._count(-1)

    def _count(self, prompts: int) -> None:
        self.load += prompts
        REPLICA_LOAD.labels(self.client.url).set(self.load)

    @asynccontextmanager
    async def serving(self, target: Target) -> AsyncIterator[Serving]:
        """Hold the target's weights, loading them when needed.

        Raises EngineDownError; ConflictError `policy_not_loadable` when the engine refuses them.
        """
        self._directories[target.base_hash] = target.base_directory
        async with self.gate.enter(target.base_hash):
            self._last_base = target.base_hash
            if target.adapter_directory is None:
                yield Serving(BASE_MODEL, self._label)
                return
            self._adapter_users[target.policy_id] += 1
            try:
                await self._ensure_adapter(target.policy_id, target.policy_name, target.adapter_directory)
                yield Serving(target.policy_id, self._label)
            finally:
                self._adapter_users[target.policy_id] -= 1

    async def confirm(self, serving: Serving) -> None:
        """Raises ReplacedError unless the engine held the same weights all the time until now."""
        if await self._labels.after_now() != serving.label:
            raise ReplacedError(f"the weights of the engine at {self.client.url} changed under the request")

    async def while_up(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work in the engine, unless the engine is given up meanwhile. Raises: EngineDownError, what `work` raises."""
        task = asyncio.ensure_future(work)
        self._at_work.add(task)
        try:
            result = await task
        except asyncio.CancelledError:
            if task in self._given_up:
                raise EngineDownError(f"The engine at {self.client.url} was given up: {self.reason}") from None
            task.cancel()
            raise
        finally:
            self._at_work.discard(task)
            self._given_up.discard(task)
        self.failures = 0
        return result

    # -- whether it lives

    async def probe(self) -> None:
        """Look at the engine; after a restart it gets its policies again before `ready` is set."""
        before = self._label
        try:
            label = await self.client.label()
            self._answered_at = time.monotonic()
            if self.gate.is_switching or before != self._label:
                return
            if label != self._label or not self.ready:
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
                f"The engine at {self.client.url} refused a control call ({error.reason}); "
                "start it with VLLM_SERVER_DEV_MODE=1 and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True."
            )

    async def _is_stalled(self) -> bool:
        """Whether it has prompts and has not worked on any for too long."""
        tokens_done, now = await self.client.tokens_done(), time.monotonic()
        if tokens_done != self._tokens_done or not self._at_work or self._adapter_lock.locked():
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
            log.warning("engine %s is down: %s", self.client.url, reason)
        self.ready = False
        self.reason = reason
        REPLICA_READY.labels(self.client.url).set(0)

    async def _adopt(self, label: str) -> None:
        served = await self.client.served()
        self.max_model_tokens = served.max_model_tokens
        resident = label.partition(".")[0] if "." in label and not label.startswith(f"{LOADING}.") else None
        wanted = OrderedDict(self._adapters)
        if label != self._label:
            self.prompts.forget()
        self._label = label
        if resident is None:
            self._adapters.clear()
        else:
            # Adapters are unloaded before any switch, so those listed sit on what is resident.
            await self.client.resume()
            self._adapters = OrderedDict(served.adapters)
        self.gate.adopt(resident)
        if self._last_base:
            await self._restore(wanted)
        log.info("engine %s is ready (holds %s)", self.client.url, label)
        self.ready = True
        self._moved_at = time.monotonic()
        self.reason = ""
        REPLICA_READY.labels(self.client.url).set(1)

    async def _restore(self, adapters: OrderedDict[str, Path]) -> None:
        try:
            async with self.gate.enter(self._last_base):
                for name, directory in adapters.items():
                    await self._ensure_adapter(name, name, directory)
        except ConflictError as error:
            log.warning("engine %s restarted and does not take its policies again: %s", self.client.url, error)

    # -- loading

    async def _ensure_adapter(self, adapter_id: str, name: str, directory: Path) -> None:
        async with self._adapter_lock:
            if adapter_id in self._adapters:
                self._adapters.move_to_end(adapter_id)
                return
            await self._make_room()
            try:
                await self.client.load_adapter(adapter_id, directory, self._settings.engine_switch_timeout_s)
            except EngineRefusedError as error:
                raise _not_loadable(self.client.url, name, directory, error) from error
            self._adapters[adapter_id] = directory

    async def _make_room(self) -> None:
        """Unload the least recently used adapters that nobody uses; a used one is kept, the engine swaps more than fit."""
        idle = [name for name in self._adapters if not self._adapter_users[name]]
        surplus = len(self._adapters) + 1 - self._settings.engine_max_loras
        for name in idle[: max(surplus, 0)]:
            await self.client.unload_adapter(name)
            del self._adapters[name]
            del self._adapter_users[name]

    def forget_adapter(self, adapter_id: str) -> None:
        """The engine says that it does not have it."""
        self._adapters.pop(adapter_id, None)

    async def _switch(self, base_hash: str) -> None:
        """Replace the full weights. The gate guarantees that nobody is inside."""
        previous = self._label.partition(".")[0]
        await self._set_label(f"{LOADING}.{uuid.uuid4().hex[:12]}")
        await self.client.pause(self._settings.engine_switch_timeout_s)
        for name, _ in (await self.client.served()).adapters:
            await self.client.unload_adapter(name)
        self._adapters.clear()
        self._adapter_users.clear()
        directory = self._directories[base_hash]
        try:
            await self._reload(base_hash, directory)
        except EngineRefusedError as error:
            cause = _not_loadable(self.client.url, directory.name, directory, error)
            raise SwitchFailedError(cause, await self._reload_previous(previous)) from error

    async def _reload(self, base_hash: str, directory: Path) -> None:
        """A refused reload leaves the engine paused: running on half-replaced weights would kill it."""
        await self.client.reload_weights(directory, self._settings.engine_switch_timeout_s)
        await self.client.reset_prefix_cache()
        await self._set_label(f"{base_hash}.{uuid.uuid4().hex[:12]}")
        await self.client.resume()
        self._moved_at = time.monotonic()
        SWITCHES.labels(self.client.url).inc()
        log.info("engine %s holds %s now", self.client.url, directory)

    async def _reload_previous(self, previous: str) -> str | None:
        """What is resident after a refused reload: the weights of before, or unknown."""
        directory = self._directories.get(previous)
        if directory is None:
            return None
        try:
            await self._reload(previous, directory)
        except EngineRefusedError as error:
            await self._fail_engine(f"it does not take {directory} back: {error.reason}")
            return None
        return previous

    async def _fail_engine(self, why: str) -> None:
        """An engine that is stuck on half-replaced weights only recovers by a restart: its first token ends it, and
        whoever supervises it starts it again. Its label stays `loading`, so nothing is ever sampled from it.
        """
        log.error("engine %s is beyond repair, %s; it is made to end", self.client.url, why)
        await self.client.resume()
        await self.client.complete(BASE_MODEL, (0,), 1, SamplingParameters(max_tokens=1), self._settings.engine_wait_s)

    async def _set_label(self, label: str) -> None:
        await self.client.set_label(label)
        self._label = label


def _not_loadable(url: str, name: str, directory: Path, error: EngineRefusedError) -> ConflictError:
    return ConflictError(
        "policy_not_loadable", f"The engine at {url} refuses the weights of {name} in {directory}: {error.reason}"
    )
