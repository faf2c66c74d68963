"""What one engine holds, and loading what a policy needs into it.

The engine itself carries the label `<content hash>.<nonce>` of its full weights, set by the switch that loaded them and
unique to it, so nothing is stored, and this service may restart at any time.
"""

import asyncio
import logging
import uuid
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.generation.client.engine import BASE_MODEL, EngineClient
from services.generation.client.engine_errors import EngineRefusedError
from services.generation.metrics import SWITCHES
from services.generation.service.gate import ResidencyGate, SwitchFailedError
from services.generation.settings import GenerationSettings
from shared.contracts.generation import SamplingParameters
from shared.errors import ConflictError

log = logging.getLogger(__name__)

LOADING = "loading"


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


class Loading:
    """The full weights and adapters of one engine. `label`: of the full weights, as the engine said or was told last."""

    def __init__(self, client: EngineClient, settings: GenerationSettings) -> None:
        self.label = ""
        self.max_model_tokens = 0
        self._client = client
        self._settings = settings
        self._gate = ResidencyGate(self._switch)
        self._directories: dict[str, Path] = {}
        self._last_base = ""
        self._adapters: OrderedDict[str, Path] = OrderedDict()
        self._adapter_users: Counter[str] = Counter()
        self._adapter_lock = asyncio.Lock()

    @property
    def is_switching(self) -> bool:
        """Whether the full weights are being replaced right now."""
        return self._gate.is_switching

    @property
    def is_loading_adapter(self) -> bool:
        """Whether an adapter is being loaded right now."""
        return self._adapter_lock.locked()

    def holds(self, base_hash: str, adapter_id: str | None) -> bool:
        """Whether the policy is there without loading."""
        return self._gate.resident == base_hash and (adapter_id is None or adapter_id in self._adapters)

    @asynccontextmanager
    async def serving(self, target: Target) -> AsyncIterator[Serving]:
        """Hold the target's weights, loading them when needed.

        Raises EngineDownError; ConflictError `policy_not_loadable` when the engine refuses them.
        """
        self._directories[target.base_hash] = target.base_directory
        async with self._gate.enter(target.base_hash):
            self._last_base = target.base_hash
            if target.adapter_directory is None:
                yield Serving(BASE_MODEL, self.label)
                return
            self._adapter_users[target.policy_id] += 1
            try:
                await self._ensure_adapter(target.policy_id, target.policy_name, target.adapter_directory)
                yield Serving(target.policy_id, self.label)
            finally:
                self._adapter_users[target.policy_id] -= 1

    def needs(self, content_hash: str, adapter_id: str) -> bool:
        """Whether the engine works with these weights now, or would load them after a restart."""
        is_base = content_hash == self._last_base or content_hash in self._gate.wanted
        return is_base or self._adapter_users[adapter_id] > 0

    async def adopt(self, label: str) -> None:
        """Take over what the engine says that it holds, and load again what it held before a restart.

        Raises EngineDownError, EngineRefusedError.
        """
        served = await self._client.served()
        self.max_model_tokens = served.max_model_tokens
        resident = label.partition(".")[0] if "." in label and not label.startswith(f"{LOADING}.") else None
        wanted = OrderedDict(self._adapters)
        self.label = label
        if resident is None:
            self._adapters.clear()
        else:
            # Adapters are unloaded before any switch, so those listed sit on what is resident.
            await self._client.resume()
            self._adapters = OrderedDict(served.adapters)
        self._gate.adopt(resident)
        # What was pruned meanwhile is not loaded again.
        if self._last_base and self._directories[self._last_base].is_dir():
            there = ((name, directory) for name, directory in wanted.items() if directory.is_dir())
            await self._restore(OrderedDict(there))

    async def _restore(self, adapters: OrderedDict[str, Path]) -> None:
        try:
            async with self._gate.enter(self._last_base):
                for name, directory in adapters.items():
                    await self._ensure_adapter(name, name, directory)
        except ConflictError as error:
            log.warning("engine %s restarted and does not take its policies again: %s", self._client.url, error)

    async def _ensure_adapter(self, adapter_id: str, name: str, directory: Path) -> None:
        async with self._adapter_lock:
            if adapter_id in self._adapters:
                self._adapters.move_to_end(adapter_id)
                return
            await self._make_room()
            try:
                await self._client.load_adapter(adapter_id, directory, self._settings.engine_switch_timeout_s)
            except EngineRefusedError as error:
                raise _not_loadable(self._client.url, name, directory, error) from error
            self._adapters[adapter_id] = directory

    async def _make_room(self) -> None:
        """Unload the least recently used adapters that nobody uses; a used one is kept, the engine swaps more than fit."""
        idle = [name for name in self._adapters if not self._adapter_users[name]]
        surplus = len(self._adapters) + 1 - self._settings.engine_max_loras
        for name in idle[: max(surplus, 0)]:
            await self._client.unload_adapter(name)
            del self._adapters[name]
            del self._adapter_users[name]

    def forget_adapter(self, adapter_id: str) -> None:
        """The engine says that it does not have it."""
        self._adapters.pop(adapter_id, None)

    async def _switch(self, base_hash: str) -> None:
        """Replace the full weights. The gate guarantees that nobody is inside."""
        previous = self.label.partition(".")[0]
        await self._set_label(f"{LOADING}.{uuid.uuid4().hex[:12]}")
        await self._client.pause(self._settings.engine_switch_timeout_s)
        for name, _ in (await self._client.served()).adapters:
            await self._client.unload_adapter(name)
        self._adapters.clear()
        self._adapter_users.clear()
        directory = self._directories[base_hash]
        try:
            await self._reload(base_hash, directory)
        except EngineRefusedError as error:
            cause = _not_loadable(self._client.url, directory.name, directory, error)
            raise SwitchFailedError(cause, await self._reload_previous(previous)) from error

    async def _reload(self, base_hash: str, directory: Path) -> None:
        """A refused reload leaves the engine paused: running on half-replaced weights would kill it."""
        await self._client.reload_weights(directory, self._settings.engine_switch_timeout_s)
        await self._client.reset_prefix_cache()
        await self._set_label(f"{base_hash}.{uuid.uuid4().hex[:12]}")
        await self._client.resume()
        SWITCHES.labels(self._client.url).inc()
        log.info("engine %s holds %s now", self._client.url, directory)

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
        log.error("engine %s is beyond repair, %s; it is made to end", self._client.url, why)
        await self._client.resume()
        await self._client.complete(BASE_MODEL, (0,), 1, SamplingParameters(max_tokens=1), self._settings.engine_wait_s)

    async def _set_label(self, label: str) -> None:
        await self._client.set_label(label)
        self.label = label


def _not_loadable(url: str, name: str, directory: Path, error: EngineRefusedError) -> ConflictError:
    return ConflictError(
        "policy_not_loadable", f"The engine at {url} refuses the weights of {name} in {directory}: {error.reason}"
    )
