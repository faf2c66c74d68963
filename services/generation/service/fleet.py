"""All engine replicas: who lives, who takes the next prompt, and when to say that there are too many."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from services.generation.client.engine import EngineClient
from services.generation.client.engine_errors import EngineDownError
from services.generation.client.transfer import Transfer
from services.generation.service.loading import Target
from services.generation.service.replica import ReplacedError, Replica
from services.generation.settings import GenerationSettings
from shared.errors import HeadwaterError, UnavailableError

FIRST_PAUSE_S, LAST_PAUSE_S = 0.5, 30.0
log = logging.getLogger(__name__)


class OverloadedError(HeadwaterError):
    """429: too many prompts wait already; `retry_after_s` is when to come back."""

    def __init__(self, waiting: int, retry_after_s: int) -> None:
        super().__init__("overloaded", f"{waiting} prompts are waiting for the engine; send this again later.", 429)
        self.retry_after_s = retry_after_s


class Fleet:
    """The replicas of this service. `running` keeps their probes going."""

    def __init__(self, settings: GenerationSettings) -> None:
        self._settings = settings
        transfer = _transfer(settings)
        clients = (EngineClient(url, settings.prompts_in_flight, transfer) for url in settings.engines())
        self.replicas = tuple(Replica(client, settings) for client in clients)
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Probe every replica until the block ends, then close the connections."""
        async with AsyncExitStack() as stack:
            for replica in self.replicas:
                stack.push_async_callback(replica.client.close)
            async with asyncio.TaskGroup() as probes:
                tasks = [probes.create_task(self._watch(replica)) for replica in self.replicas]
                try:
                    yield
                finally:
                    for task in tasks:
                        task.cancel()

    async def _watch(self, replica: Replica) -> None:
        while True:
            replica.health.suspected.clear()
            if not replica.health.ready and replica.health.failures > 1:
                await asyncio.sleep(min(LAST_PAUSE_S, FIRST_PAUSE_S * 2 ** (min(replica.health.failures, 16) - 2)))
            await replica.health.probe()
            self._changed.set()
            self._changed.clear()
            try:
                async with asyncio.timeout(self._settings.engine_probe_every_s):
                    await replica.health.suspected.wait()
            except TimeoutError:
                continue

    def suspect(self, replica: Replica, error: EngineDownError | ReplacedError) -> None:
        """A request found the replica dead, or with other weights: no more traffic until a probe says otherwise.

        The probe comes at once, but later each time that the requests after it fail again: an engine that answers probes and
        nothing else is tried ever less often.
        """
        if replica.health.ready:
            replica.health.failures += 1
        replica.health.mark_down(str(error))
        replica.health.suspected.set()

    def admit(self, prompts: int) -> None:
        """Raises OverloadedError when this many more prompts would wait too long. An idle service takes any request."""
        waiting = sum(replica.load for replica in self.replicas)
        room = len(self.replicas) * (self._settings.prompts_in_flight + self._settings.prompts_waiting)
        if waiting and waiting + prompts > room:
            raise OverloadedError(waiting, retry_after_s=5)

    async def choose(self, target: Target) -> Replica:
        """The ready replica with the least to do, waiting a little for one that restarts.

        A replica that would first have to load the policy counts as full. Raises EngineDownError.
        """
        ready = await self._ready()
        adapter_id = target.policy_id if target.adapter_directory else None
        full = self._settings.prompts_in_flight
        return min(
            ready, key=lambda replica: replica.load + (0 if replica.holds(target.base_hash, adapter_id) else full)
        )

    async def any_ready(self) -> Replica:
        """Any ready replica. Raises EngineDownError."""
        return min(await self._ready(), key=lambda replica: replica.load)

    async def _ready(self) -> list[Replica]:
        try:
            async with asyncio.timeout(self._settings.engine_wait_s):
                while not (ready := [replica for replica in self.replicas if replica.health.ready]):
                    await self._changed.wait()
        except TimeoutError as error:
            raise EngineDownError(self.why_not_ready()) from error
        return ready

    def why_not_ready(self) -> str:
        """One sentence on the first replica that is not ready."""
        return next(
            (replica.health.reason for replica in self.replicas if not replica.health.ready), "every engine is ready"
        )

    async def make_live(self, target: Target) -> None:
        """Load the policy into every replica and return when each confirmed it.

        Raises UnavailableError `engine_down` / `engine_busy`; ConflictError `policy_not_loadable`.
        """
        try:
            async with asyncio.timeout(self._settings.engine_switch_timeout_s):
                await self.any_ready()
                for replica in self.replicas:
                    await self._load(replica, target)
        except TimeoutError as error:
            sentence = (
                f"The engine is still busy with another policy; {target.policy_name} could not be loaded in time."
            )
            raise UnavailableError("engine_busy", sentence) from error

    async def _load(self, replica: Replica, target: Target) -> None:
        if not replica.health.ready:
            raise UnavailableError(
                "engine_down", replica.health.reason or f"The engine at {replica.client.url} is not ready."
            )
        try:
            async with replica.loading.serving(target) as serving:
                await replica.confirm(serving)
        except (EngineDownError, ReplacedError) as error:
            self.suspect(replica, error)
            raise UnavailableError("engine_down", str(error)) from error

    def needs(self, content_hash: str, adapter_id: str) -> bool:
        """Whether an engine works with these weights now, or would load them after a restart."""
        return any(replica.loading.needs(content_hash, adapter_id) for replica in self.replicas)

    def is_live(self, base_hash: str, adapter_id: str | None) -> bool:
        """Whether every replica holds the policy right now."""
        return all(replica.holds(base_hash, adapter_id) for replica in self.replicas)


def _transfer(settings: GenerationSettings) -> Transfer | None:
    if settings.engine_weight_transfer == "files":
        return None
    return Transfer(settings.engine_transfer_address, settings.engine_workers)
