"""One engine replica: room for prompts, and sampling on exactly the weights that were asked for.

A request remembers the label of the engine's weights that it started under, and its answer counts only if the engine still
has that label afterwards: a restart, a crash in a switch, or somebody else's switch can never pass off other weights.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.generation.client.engine import EngineClient
from services.generation.metrics import REPLICA_LOAD
from services.generation.service.health import Health
from services.generation.service.loading import Loading, Serving
from services.generation.service.prompts import Prompts
from services.generation.service.shared_call import Shared
from services.generation.settings import GenerationSettings


class ReplacedError(Exception):
    """The engine's weights changed under a request: its answer does not count."""


class Replica:
    """One engine. `load`: prompts that run or wait here."""

    def __init__(self, client: EngineClient, settings: GenerationSettings) -> None:
        self.client = client
        self.load = 0
        self.prompts = Prompts(client)
        self.loading = Loading(client, settings)
        self.health = Health(client, self.loading, self.prompts, settings)
        self._slots = asyncio.Semaphore(settings.prompts_in_flight)
        self._labels = Shared(client.label)

    def holds(self, base_hash: str, adapter_id: str | None) -> bool:
        """Whether the policy could be sampled here at once."""
        return self.health.ready and self.loading.holds(base_hash, adapter_id)

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

    async def confirm(self, serving: Serving) -> None:
        """Raises ReplacedError unless the engine held the same weights all the time until now."""
        if await self._labels.after_now() != serving.label:
            raise ReplacedError(f"the weights of the engine at {self.client.url} changed under the request")
