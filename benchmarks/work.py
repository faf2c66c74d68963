"""Further work in a campaign, ordered as the cascade orders its own: by keys, so that whoever is killed repeats it all and goes on.

Orders, snapshots and runs are made if their key has none, and waited for. A service that is being restarted is waited for, too.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from services.cascade import client
from services.cascade.service.progress import RUN_ENDED
from services.cascade.service.sampling import check_finished
from services.local.directory import DataDirectory
from services.local.state import StackState
from shared.contracts.campaigns import Campaign, Stage, StageName
from shared.contracts.listing import GroupPage
from shared.contracts.metrics import OrderMetrics
from shared.contracts.orders import Group, Order, OrderIn, OrderState
from shared.contracts.policies import Policy
from shared.contracts.runs import Run, RunIn, RunState
from shared.contracts.snapshots import Snapshot, SnapshotIn, SnapshotStatus
from shared.errors import UnavailableError
from shared.settings import Settings
from shared.web import call, service_client

T = TypeVar("T")
POLL_INTERVAL_S, SAID_EVERY_S, PATIENCE_S = 2.0, 30.0, 300.0


@asynccontextmanager
async def work_of(
    directory: DataDirectory, state: StackState, campaign: Campaign, say: Callable[[str], None]
) -> AsyncIterator["Work"]:
    """Work in a campaign of the stack that runs on a directory."""
    urls = {f"{name}_url": state.urls[name] for name in ("pool", "generation", "training", "verification")}
    settings = Settings.model_validate({**urls, "service_token": directory.secret("service_token")})
    async with client.connect(settings) as peers, service_client(settings.pool_url, settings) as pool:
        yield Work(campaign, peers, pool, say)


@dataclass(frozen=True)
class Work:
    """Makes things and waits for them; `say` tells how far they are."""

    campaign: Campaign
    peers: client.Peers
    pool: httpx.AsyncClient
    say: Callable[[str], None]

    def stage(self, name: StageName) -> Stage:
        """A stage of the campaign."""
        return next(stage for stage in self.campaign.stages if stage.name is name)

    async def policy_of(self, name: StageName) -> Policy:
        """The policy that came out of a stage. Raises: ValueError when none did."""
        policy_id = self.stage(name).policy_id
        if policy_id is None:
            raise ValueError(f"no policy came out of {name}")
        return await self.peers.generation.policy(policy_id)

    async def metrics_of(self, name: StageName) -> OrderMetrics:
        """The metrics of a stage that is an order. Raises: ValueError when it made none."""
        order_id = self.stage(name).order_id
        if order_id is None:
            raise ValueError(f"{name} made no order")
        return await self.peers.pool.order_metrics(order_id)

    async def ordered(self, request: OrderIn) -> Order:
        """The order. Its policy is made live before it is made, and not again, as a run may have gone on with newer ones."""
        pool, generation = self.peers.pool, self.peers.generation
        found = [order for order in await pool.orders(request.campaign_id) if order.key == request.key]
        if not found:
            await _patiently(lambda: generation.make_live(request.policy_id))
        return await pool.create_order(request)

    async def sampled(self, request: OrderIn) -> Order:
        """The finite order, complete. Raises: StageHaltedError when too many of its questions were given up."""
        order = await self.ordered(request)
        order = await self._until(
            lambda: self.peers.pool.order(order.id),
            lambda order: order.state is not OrderState.OPEN,
            lambda order: f"{order.key}: {order.done} of {order.total} questions",
        )
        check_finished(order, self.campaign.recipe)
        return order

    async def groups(self, order: Order) -> list[Group]:
        """Every group of an order."""
        found: list[Group] = []
        params = {"order": str(order.id), "limit": "200"}
        while True:
            page = await call(self.pool, "GET", "/v1/groups", GroupPage, params=params)
            found.extend(page.items)
            if page.next is None:
                return found
            params["after"] = page.next

    async def built(self, request: SnapshotIn) -> Snapshot:
        """The snapshot, ready. Raises: RuntimeError when it could not be built."""
        snapshot = await self.peers.pool.create_snapshot(request)
        snapshot = await self._until(
            lambda: self.peers.pool.snapshot(snapshot.id),
            lambda snapshot: snapshot.status is not SnapshotStatus.BUILDING,
            lambda snapshot: f"{snapshot.key}: {snapshot.status}",
        )
        if snapshot.status is SnapshotStatus.FAILED:
            raise RuntimeError(f"Snapshot '{snapshot.key}' could not be built: {snapshot.error}")
        self.say(f"{snapshot.key}: {snapshot.rows} rows; left out: {snapshot.dropped or 'nothing'}")
        return snapshot

    async def trained(self, request: RunIn) -> Policy:
        """The policy that a run ends with. Raises: RuntimeError when it does not succeed."""
        run = await self.peers.training.create_run(request)
        run = await self._until(
            lambda: self.peers.training.run(run.id), lambda run: run.state in RUN_ENDED, _words_of_run
        )
        if run.state is not RunState.SUCCEEDED or run.policy_id is None:
            raise RuntimeError(f"Run '{run.key}' is {run.state} ({run.failure}) at step {run.step}: {run.message}")
        return await self.peers.generation.policy(run.policy_id)

    async def _until(
        self, look: Callable[[], Awaitable[T]], is_over: Callable[[T], bool], words: Callable[[T], str]
    ) -> T:
        began = said_at = time.monotonic()
        while not is_over(found := await _patiently(look)):
            if time.monotonic() - said_at >= SAID_EVERY_S:
                said_at = time.monotonic()
                self.say(words(found))
            await asyncio.sleep(POLL_INTERVAL_S)
        self.say(f"{words(found)}, {time.monotonic() - began:.0f} s")
        return found


def _words_of_run(run: Run) -> str:
    reason = f" ({run.message})" if run.message else ""
    return f"{run.key}: {run.state}, step {run.step} of {run.steps}{reason}"


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Asked again while the service does not answer. Raises: what it answers at last."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(UnavailableError),
        stop=stop_after_delay(PATIENCE_S),
        wait=wait_fixed(POLL_INTERVAL_S),
        reraise=True,
    ):
        with attempt:
            return await ask()
    raise AssertionError("the last attempt raises")
