"""Claims: assignments leased from the pool. None is lost between the pool's answer and the end of a drain."""

import asyncio
import logging
from collections.abc import Callable

from services.sampling.client import PoolClient, TransientError
from services.sampling.service.patience import Patience, persist
from shared.contracts.orders import MAX_CLAIM, Assignment, ClaimRequest, ClaimResult
from shared.errors import HeadwaterError

log = logging.getLogger(__name__)
LAST_CLAIM_DEADLINE_S = 5.0


class Claims:
    """The claims of one worker, one at a time."""

    def __init__(self, pool: PoolClient, worker: str, lease_s: float, patience: Callable[[], Patience]) -> None:
        self._pool = pool
        self._worker = worker
        self._lease_s = lease_s
        self._patience = patience
        self._under_way: asyncio.Task[ClaimResult] | None = None

    async def claim(self, limit: int) -> ClaimResult:
        """At most `limit` assignments. Raises: HeadwaterError of the pool; TransientError when it stays away too long."""
        request = ClaimRequest(worker=self._worker, limit=min(limit, MAX_CLAIM), lease_s=self._lease_s)

        async def ask() -> ClaimResult:
            self._under_way = asyncio.create_task(self._pool.claim(request))
            claim = await asyncio.shield(self._under_way)
            self._under_way = None
            return claim

        return await persist(ask, self._patience())

    async def last(self) -> tuple[Assignment, ...]:
        """What a claim brought whose caller was cancelled: the pool may have leased it already."""
        if self._under_way is None:
            return ()
        try:
            async with asyncio.timeout(LAST_CLAIM_DEADLINE_S):
                return (await self._under_way).assignments
        except (TimeoutError, TransientError, HeadwaterError) as failure:
            log.info("what a last claim leased, if anything, runs out by itself: %r", failure)
            return ()
