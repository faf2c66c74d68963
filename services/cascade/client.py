"""HTTP out: the pool, generation, training and verification, as the cascade uses them. Every call has a deadline.

A peer that does not answer, or answers with nonsense, is an UnavailableError that names the service; an error that a
peer names is passed on as it is.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import httpx
from pydantic import ValidationError

from shared.contracts.base import Contract
from shared.contracts.engine import EngineInfo
from shared.contracts.lineage import QuestionUses, RetractedUsesList, RetractManyIn, TrainedOn, TrainedOnRequest
from shared.contracts.listing import OrderPage
from shared.contracts.metrics import OrderMetrics
from shared.contracts.orders import Order, OrderIn
from shared.contracts.policies import Policy, PolicyIn
from shared.contracts.questions import PoolCounts
from shared.contracts.recipe import Recipe
from shared.contracts.reverification import ReverifyIn, Verifiers
from shared.contracts.runs import Run, RunIn, RunList, RunState
from shared.contracts.snapshots import Snapshot, SnapshotIn
from shared.contracts.verifications import VerifyIn, Yields
from shared.errors import UnavailableError
from shared.settings import Settings
from shared.web import call, service_client

T = TypeVar("T")
TIMEOUT_S, LIVE_TIMEOUT_S, METRICS_TIMEOUT_S, LINEAGE_TIMEOUT_S = 15.0, 180.0, 60.0, 60.0
MAX_RUNS = 1000


class _Peer:
    """One service behind HTTP, called by its name in every error."""

    name: str

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def _call(self, method: str, path: str, answer: type[T], **request: object) -> T:
        try:
            return await call(self._http, method, path, answer, **request)
        except UnavailableError as error:
            raise UnavailableError("service_unavailable", f"{self.name} does not answer") from error
        except ValidationError as error:
            message = f"{self.name} answered {method} {path} in a form that is not understood"
            raise UnavailableError("answer_not_understood", message) from error


def _body(contract: Contract) -> dict[str, object]:
    return contract.model_dump(mode="json")


class PoolClient(_Peer):
    """The QA-pool store."""

    name = "pool"

    async def put_settings(self, campaign_id: UUID, name: str, recipe: Recipe) -> None:
        """Register the campaign, so that it takes questions. Idempotent."""
        settings = {"name": name, "router": _body(recipe.router), "pool": _body(recipe.pool)}
        await self._call("PUT", f"/v1/campaigns/{campaign_id}/settings", object, json=settings)

    async def counts(self, campaign_id: UUID) -> PoolCounts:
        """How many questions are where."""
        return await self._call("GET", "/v1/pools", PoolCounts, params={"campaign": str(campaign_id)})

    async def create_order(self, order: OrderIn) -> Order:
        """Make the order, or get the one of this key."""
        return await self._call("POST", "/v1/orders", Order, json=_body(order))

    async def order(self, order_id: UUID) -> Order:
        """An order and its progress."""
        return await self._call("GET", f"/v1/orders/{order_id}", Order)

    async def close_order(self, order_id: UUID) -> None:
        """A closed order makes no more assignments. Idempotent."""
        await self._call("POST", f"/v1/orders/{order_id}/close", object)

    async def order_metrics(self, order_id: UUID) -> OrderMetrics:
        """What came out of an order."""
        return await self._call("GET", f"/v1/orders/{order_id}/metrics", OrderMetrics, timeout=METRICS_TIMEOUT_S)

    async def create_snapshot(self, snapshot: SnapshotIn) -> Snapshot:
        """Order the snapshot, or get the one of this key."""
        return await self._call("POST", "/v1/snapshots", Snapshot, json=_body(snapshot))

    async def snapshot(self, snapshot_id: UUID) -> Snapshot:
        """A snapshot and whether it is ready."""
        return await self._call("GET", f"/v1/snapshots/{snapshot_id}", Snapshot)

    async def question_uses(self, question_id: UUID, after: int, limit: int) -> QuestionUses:
        """What the pool knows of a question's lineage."""
        params = {"after": after, "limit": limit}
        return await self._call("GET", f"/v1/lineage/questions/{question_id}", QuestionUses, params=params)

    async def trained_on(self, request: TrainedOnRequest) -> TrainedOn:
        """The questions of snapshots and of runs' batches."""
        return await self._call(
            "POST", "/v1/lineage/questions", TrainedOn, json=_body(request), timeout=LINEAGE_TIMEOUT_S
        )

    async def retract(self, request: RetractManyIn) -> RetractedUsesList:
        """Leave questions out from now on. Idempotent."""
        return await self._call(
            "POST", "/v1/lineage/retractions", RetractedUsesList, json=_body(request), timeout=LINEAGE_TIMEOUT_S
        )

    async def orders(self, campaign_id: UUID) -> list[Order]:
        """Every order of a campaign, oldest first."""
        found: list[Order] = []
        params = {"campaign": str(campaign_id)}
        while True:
            page = await self._call("GET", "/v1/orders", OrderPage, params=params)
            found.extend(page.items)
            if page.next is None:
                return found
            params["after"] = page.next

    async def reverify(self, order_id: UUID, request: ReverifyIn) -> Order:
        """Make the order that judges an order's responses again, or get the one of this key."""
        path = f"/v1/orders/{order_id}/reverify"
        return await self._call("POST", path, Order, json=_body(request), timeout=LINEAGE_TIMEOUT_S)

    async def verify(self, order_id: UUID, request: VerifyIn) -> Order:
        """Make the order that verifies an order's answers, or get the one of this key."""
        path = f"/v1/orders/{order_id}/verify"
        return await self._call("POST", path, Order, json=_body(request), timeout=LINEAGE_TIMEOUT_S)

    async def yields(self, order_id: UUID) -> Yields:
        """What came of an order for verifications."""
        return await self._call("GET", f"/v1/orders/{order_id}/yields", Yields, timeout=LINEAGE_TIMEOUT_S)


class GenerationClient(_Peer):
    """Which policies exist, and the engine."""

    name = "generation"

    async def engine(self) -> EngineInfo:
        """What the engine was started with."""
        return await self._call("GET", "/v1/engine", EngineInfo)

    async def register(self, policy: PolicyIn) -> Policy:
        """Register a policy, or get the registered one."""
        return await self._call("POST", "/v1/policies", Policy, json=_body(policy))

    async def make_live(self, policy_id: UUID) -> Policy:
        """Answers when every replica serves the policy. Idempotent."""
        return await self._call("POST", f"/v1/policies/{policy_id}/live", Policy, timeout=LIVE_TIMEOUT_S)

    async def policy(self, policy_id: UUID) -> Policy:
        """One policy."""
        return await self._call("GET", f"/v1/policies/{policy_id}", Policy)

    async def policies(self, campaign_id: UUID) -> list[Policy]:
        """Every policy of a campaign, by version."""
        return await self._call("GET", "/v1/policies", list[Policy], params={"campaign": str(campaign_id)})


class TrainingClient(_Peer):
    """Runs."""

    name = "training"

    async def create_run(self, run: RunIn) -> Run:
        """Order the run, or get the one of this key."""
        return await self._call("POST", "/v1/runs", Run, json=_body(run))

    async def run(self, run_id: UUID) -> Run:
        """A run and where it stands."""
        return await self._call("GET", f"/v1/runs/{run_id}", Run)

    async def runs(self, campaign_id: UUID) -> tuple[Run, ...]:
        """The runs of a campaign, oldest first."""
        params = {"campaign": str(campaign_id), "limit": MAX_RUNS}
        return (await self._call("GET", "/v1/runs", RunList, params=params)).items

    async def cancel_run(self, run_id: UUID) -> None:
        """Stop a run; one that has ended stays as it is."""
        await self._call("POST", f"/v1/runs/{run_id}/cancel", object)

    async def queued_runs(self) -> tuple[Run, ...]:
        """Runs that wait for a worker, in every campaign, oldest first."""
        return (await self._call("GET", "/v1/runs", RunList, params={"state": RunState.QUEUED})).items


class VerificationClient(_Peer):
    """What judges."""

    name = "verification"

    async def verifiers(self) -> Verifiers:
        """The present verifier of each kind."""
        return await self._call("GET", "/v1/verifiers", Verifiers)


@dataclass(frozen=True)
class Peers:
    """The services that the cascade talks to."""

    pool: PoolClient
    generation: GenerationClient
    training: TrainingClient
    verification: VerificationClient


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Peers]:
    """Clients for the addresses of the environment."""
    async with AsyncExitStack() as stack:
        urls = (settings.pool_url, settings.generation_url, settings.training_url, settings.verification_url)
        pool, generation, training, verification = [
            await stack.enter_async_context(service_client(url, settings, TIMEOUT_S)) for url in urls
        ]
        yield Peers(
            PoolClient(pool),
            GenerationClient(generation),
            TrainingClient(training),
            VerificationClient(verification),
        )
