"""HTTP out: the pool (snapshots, batches, orders) and generation (policies).

A peer that does not answer, or is busy, is asked again with a growing delay until `deadline_s`; every request may be
repeated without harm. What a peer refuses is raised as it named it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import httpx
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from services.training.settings import TrainingSettings
from shared import arrow
from shared.arrow.lease import PackedLease, read
from shared.contracts.batches import BatchAck, BatchLeaseRequest, BatchRelease
from shared.contracts.listing import OrderPage
from shared.contracts.orders import Order, OrderPolicy, OrderState
from shared.contracts.policies import Policy, PolicyIn
from shared.contracts.snapshots import Snapshot
from shared.errors import HeadwaterError
from shared.web import call, call_bytes, service_client

T = TypeVar("T")
REQUEST_DEADLINE_S = 60.0
LIVE_DEADLINE_S = 300.0


def is_temporary(error: BaseException) -> bool:
    """Whether to ask again: busy, restarting, or not reachable."""
    return isinstance(error, HeadwaterError) and error.status in (429, 502, 503, 504)


@dataclass(frozen=True)
class Peers:
    """The services that a trainer talks to."""

    pool: httpx.AsyncClient
    generation: httpx.AsyncClient
    deadline_s: float

    async def policy(self, policy_id: UUID) -> Policy:
        """One policy of the registry."""
        return await self._ask(lambda: call(self.generation, "GET", f"/v1/policies/{policy_id}", Policy))

    async def policies(self, campaign_id: UUID) -> list[Policy]:
        """The policies of a campaign, by version."""
        query = {"campaign": str(campaign_id)}
        return await self._ask(lambda: call(self.generation, "GET", "/v1/policies", list[Policy], params=query))

    async def register(self, policy: PolicyIn) -> Policy:
        """Register a policy; again is harmless."""
        body = policy.model_dump(mode="json")
        return await self._ask(lambda: call(self.generation, "POST", "/v1/policies", Policy, json=body))

    async def make_live(self, policy_id: UUID) -> Policy:
        """Load a policy into every replica; answers when it is served."""
        path, timeout = f"/v1/policies/{policy_id}/live", LIVE_DEADLINE_S
        return await self._ask(lambda: call(self.generation, "POST", path, Policy, timeout=timeout))

    async def prune(self, policy_id: UUID) -> Policy:
        """Have the weights of an intermediate version removed; again is harmless."""
        return await self._ask(lambda: call(self.generation, "POST", f"/v1/policies/{policy_id}/prune", Policy))

    async def sampled_policies(self, campaign_id: UUID) -> set[UUID]:
        """The policies that open orders of a campaign sample with."""
        found: set[UUID] = set()
        query = {"campaign": str(campaign_id), "state": OrderState.OPEN.value}
        while True:
            page = await self._ask(lambda: call(self.pool, "GET", "/v1/orders", OrderPage, params=query))
            found |= {order.policy_id for order in page.items}
            if page.next is None:
                return found
            query["after"] = page.next

    async def snapshot(self, snapshot_id: UUID) -> Snapshot:
        """One snapshot."""
        return await self._ask(lambda: call(self.pool, "GET", f"/v1/snapshots/{snapshot_id}", Snapshot))

    async def order(self, order_id: UUID) -> Order:
        """One order."""
        return await self._ask(lambda: call(self.pool, "GET", f"/v1/orders/{order_id}", Order))

    async def use_policy(self, order_id: UUID, policy: Policy) -> None:
        """From now on the standing order samples with `policy`."""
        body = OrderPolicy(policy_id=policy.id, policy_version=policy.version).model_dump(mode="json")
        await self._ask(lambda: call(self.pool, "PUT", f"/v1/orders/{order_id}/policy", Any, json=body))

    async def lease_batch(self, request: BatchLeaseRequest) -> PackedLease:
        """Lease the groups of one step, as Arrow; the same (run, step) gets the same batch."""
        body, headers = request.model_dump(mode="json"), {"Accept": arrow.MEDIA_TYPE}
        path = "/v1/batches/lease"
        return read(await self._ask(lambda: call_bytes(self.pool, "POST", path, json=body, headers=headers)))

    async def acknowledge(self, batch_id: UUID, acknowledgement: BatchAck) -> None:
        """The step that used the batch is in a durable checkpoint."""
        body, path = acknowledgement.model_dump(mode="json"), f"/v1/batches/{batch_id}/ack"
        await self._ask(lambda: call(self.pool, "POST", path, Any, json=body))

    async def release(self, release: BatchRelease) -> None:
        """Give back what the run leased for a step and later ones."""
        body = release.model_dump(mode="json")
        await self._ask(lambda: call(self.pool, "POST", "/v1/batches/release", Any, json=body))

    async def _ask(self, request: Callable[[], Awaitable[T]]) -> T:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(is_temporary),
            wait=wait_exponential_jitter(initial=0.2, max=5.0, jitter=0.2),
            stop=stop_after_delay(self.deadline_s),
            reraise=True,
        ):
            with attempt:
                return await request()
        raise AssertionError("tenacity raises the last error")


@asynccontextmanager
async def open_peers(settings: TrainingSettings, deadline_s: float) -> AsyncIterator[Peers]:
    """Clients for as long as the block lasts. `deadline_s`: how long a peer that does not answer is asked again."""
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(service_client(settings.pool_url, settings, REQUEST_DEADLINE_S))
        generation = await stack.enter_async_context(
            service_client(settings.generation_url, settings, REQUEST_DEADLINE_S)
        )
        yield Peers(pool, generation, deadline_s)
