"""What the engine was started with, for the cascade to register as the base policy."""

import asyncio
from pathlib import Path

from services.generation.service.fleet import Fleet
from services.generation.settings import GenerationSettings
from shared.artifacts import hash_directory
from shared.contracts.engine import EngineInfo
from shared.errors import HeadwaterError


class EngineService:
    """The base weights are hashed once, in a thread; everybody who asks meanwhile waits for the same hash."""

    def __init__(self, settings: GenerationSettings, directory: Path | None, fleet: Fleet) -> None:
        self._settings = settings
        self._directory = directory
        self._fleet = fleet
        self._content_hash: asyncio.Task[str] | None = None

    async def info(self) -> EngineInfo:
        """Raises HeadwaterError `engine_model_missing`."""
        directory = self._directory
        if directory is None:
            sentence = (
                f"HEADWATER_ENGINE_MODEL is {self._settings.engine_model!r}; it must be the directory of the base weights "
                "that the engine was started with."
            )
            raise HeadwaterError("engine_model_missing", sentence, 409)
        if self._content_hash is None:
            self._content_hash = asyncio.create_task(asyncio.to_thread(hash_directory, directory))
        return EngineInfo(
            model_name=self._settings.engine_model_name,
            uri=str(directory),
            content_hash=await asyncio.shield(self._content_hash),
            max_model_tokens=max((replica.loading.max_model_tokens for replica in self._fleet.replicas), default=0),
            replicas=len(self._fleet.replicas),
            ready_replicas=sum(replica.health.ready for replica in self._fleet.replicas),
        )
