"""What a drain holds: assignments in flight, from their claim until they land or are given back, their leases extended meanwhile."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable

from services.sampling.client import PoolClient, TransientError
from services.sampling.service import groups
from services.sampling.service.patience import Patience, persist
from services.sampling.settings import SamplingSettings
from shared.contracts.orders import Assignment, LeaseExtension, LeaseRef
from shared.errors import HeadwaterError

log = logging.getLogger(__name__)


class Leases:
    """The assignments in flight. `failed`: how many were given back, by reason."""

    def __init__(self, pool: PoolClient, settings: SamplingSettings, failed: Counter[str]) -> None:
        self._pool = pool
        self._settings = settings
        self._failed = failed
        self._held: dict[str, Assignment] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """How many are in flight."""
        return len(self._held)

    @property
    def answers(self) -> int:
        """How many answers are in flight."""
        return sum(assignment.k for assignment in self._held.values())

    def get(self, assignment_id: str) -> Assignment | None:
        """The assignment, where it is in flight."""
        return self._held.get(assignment_id)

    def take_off(self, claimed: Iterable[Assignment]) -> list[Assignment]:
        """Put what was claimed in flight; returns what was not in flight already, under a lease that we lost."""
        fresh = []
        for assignment in claimed:
            if str(assignment.id) not in self._held:
                fresh.append(assignment)
            self._held[str(assignment.id)] = assignment
        return fresh

    def land(self, assignment_id: str) -> None:
        """It is over, whatever became of it."""
        self._held.pop(assignment_id, None)
        self._changed.set()

    async def change(self) -> None:
        """Wait until something left the flight, at most one poll interval."""
        self._changed.clear()
        try:
            async with asyncio.timeout(self._settings.poll_interval_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def fail(
        self, assignments: Iterable[Assignment], reason: str, message: str, *, counts_as_attempt: bool = True
    ) -> None:
        """Give leases back with their reason; a lease that is no longer ours needs none. Raises: TransientError."""
        for assignment in assignments:
            failure = groups.failure(assignment, reason, message, counts_as_attempt=counts_as_attempt)
            patience = Patience(self._settings.patience_s)
            try:
                await persist(lambda failure=failure: self._pool.fail(failure), patience)  # type: ignore[misc]
            except HeadwaterError as refusal:
                log.info("assignment %s could not be given back (%s): %s", assignment.id, reason, refusal.message)
            self._failed[reason] += 1
            self.land(str(assignment.id))

    async def keep(self) -> None:
        """Extend the leases of everything in flight three times a lease. A pool that is away for one beat does no harm."""
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            leases = tuple(LeaseRef(assignment_id=a.id, lease_token=a.lease_token) for a in self._held.values())
            if not leases:
                continue
            try:
                held = await self._pool.heartbeat(LeaseExtension(leases=leases, lease_s=self._settings.lease_s))
            except TransientError as failure:
                log.warning("leases were not extended: %s", failure)
            else:
                if len(held.held) < len(leases):
                    log.warning("%d leases were lost; their groups may come late", len(leases) - len(held.held))

    async def release(self, why: str) -> None:
        """Give back what is in flight, at no cost to the questions; otherwise leases run out."""
        for assignment in self._held.values():
            try:
                await self._pool.fail(groups.failure(assignment, "worker-ended", why, counts_as_attempt=False))
            except HeadwaterError as refusal:
                log.info("assignment %s could not be given back: %s", assignment.id, refusal.message)
            except TransientError as failure:
                log.warning("leases were not given back, they run out by themselves: %s", failure)
                return
