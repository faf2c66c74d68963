"""Pool, generation and training as the cascade sees them: true to the contracts, kept in memory, and easy to break.

Every time an order or a run is looked at it is further on, so a campaign that is advanced again and again ends.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
from fastapi import APIRouter, FastAPI, Response

from services.cascade.client import GenerationClient, Peers, PoolClient, TrainingClient, VerificationClient
from shared import web
from shared.contracts.engine import EngineInfo
from shared.contracts.metrics import Estimate, OrderMetrics, TrajectoryMetrics
from shared.contracts.orders import Order, OrderIn, OrderPurpose, OrderState
from shared.contracts.policies import Policy, PolicyIn, PolicyKind
from shared.contracts.questions import PoolCounts, QuestionKind
from shared.contracts.reverification import Verifiers
from shared.contracts.runs import Run, RunFailure, RunIn, RunState
from shared.contracts.snapshots import Snapshot, SnapshotIn, SnapshotStatus
from shared.contracts.verdicts import VerdictOutcome
from shared.contracts.verifications import VerifyIn, Yield, Yields
from shared.errors import ConflictError, NotFoundError, UnavailableError
from shared.settings import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOKENS_OF_AN_ORDER, TOKENS_OF_A_RUN, STEPS = 1000, 500, 4


class CrashError(Exception):
    """The process died at this point: nothing after it happens."""


class World:
    """What the three services hold, what they were asked, and what is wrong with them."""

    def __init__(self) -> None:
        self.engine_model = "tiny"
        self.counts = PoolCounts(train=200, eval=60, candidate=200, hard=50, certain=20, levels={1: 20, 5: 50})
        self.orders: dict[UUID, Order] = {}
        self.snapshots: dict[UUID, Snapshot] = {}
        self.runs: dict[UUID, Run] = {}
        self.policies: dict[UUID, Policy] = {}
        self.campaigns: dict[UUID, Any] = {}
        self.requests: dict[UUID, Any] = {}
        self.down: set[str] = set()
        self.calls: list[tuple[str, str, str]] = []
        self.before: Callable[[str, str, str], None] = lambda *_: None
        self.after: Callable[[str, str, str], None] = lambda *_: None
        self.during: Callable[[], Awaitable[None]] | None = None
        self.questions_of: Callable[[OrderIn], int] = lambda _: 10
        self.dead_of: Callable[[OrderIn], int] = lambda _: 0
        self.teacher_answers = True
        self.verifiers = dict.fromkeys(QuestionKind, "test@2")
        self.run_end: Callable[[RunIn], tuple[RunState, str]] = lambda _: (RunState.SUCCEEDED, "")
        self.run_failure = RunFailure.OUT_OF_MEMORY
        self.snapshot_end: Callable[[SnapshotIn], tuple[SnapshotStatus, int]] = lambda _: (SnapshotStatus.READY, 30)
        self.peers = Peers(
            PoolClient(self._client("pool", self._orders(), self._verifications(), self._snapshots())),
            GenerationClient(self._client("generation", self._generation(), self._policies())),
            TrainingClient(self._client("training", self._training())),
            VerificationClient(self._client("verification", self._verification())),
        )

    def made(self) -> Counter[str]:
        """What was made, by kind and key."""
        kinds = (("order", self.orders), ("snapshot", self.snapshots), ("run", self.runs))
        return Counter(f"{kind} {one.key}" for kind, things in kinds for one in things.values())

    def order(self, key: str) -> Order:
        """The order of this key."""
        return next(order for order in self.orders.values() if order.key == key)

    def _client(self, name: str, *routers: APIRouter) -> httpx.AsyncClient:
        app = web.create_app(name, Settings(), _lifespan, _ready)
        for router in routers:
            app.include_router(router)
        return httpx.AsyncClient(base_url=f"http://{name}", transport=_Wire(self, name, httpx.ASGITransport(app=app)))

    def _once(self, things: dict[UUID, Any], request: Any, make: Callable[[UUID], Any], response: Response) -> Any:
        for thing in things.values():
            if (thing.campaign_id, thing.key) == (request.campaign_id, request.key):
                if self.requests[thing.id] != request:
                    raise ConflictError("conflict", f"{request.key} exists with other content.")
                response.status_code = 200
                return thing
        made = make(uuid4())
        self.requests[made.id] = request
        things[made.id] = made
        return made

    def _orders(self) -> APIRouter:
        router = APIRouter(prefix="/v1")

        @router.put("/campaigns/{campaign_id}/settings")
        async def put_settings(campaign_id: UUID, settings: dict[str, Any]) -> dict[str, Any]:
            self.campaigns[campaign_id] = settings
            return settings

        @router.get("/pools")
        async def counts(campaign: UUID) -> PoolCounts:
            if campaign not in self.campaigns:
                raise NotFoundError("campaign", campaign)
            return self.counts

        @router.post("/orders", status_code=201)
        async def create_order(order: OrderIn, response: Response) -> Order:
            assert order.policy_id in self.policies
            is_usable = self.policies[order.policy_id].live or not self.teacher_answers  # made only to be closed
            assert is_usable, f"{order.key} uses a policy that is not live"
            return self._once(self.orders, order, lambda id_: self._new_order(id_, order), response)  # type: ignore[no-any-return]

        @router.get("/orders/{order_id}")
        async def get_order(order_id: UUID) -> Order:
            order = self.orders[order_id]
            if order.state is OrderState.OPEN and order.watermark_groups is None:
                self.orders[order_id] = self._further(order)
            return order

        @router.post("/orders/{order_id}/close")
        async def close(order_id: UUID) -> Order:
            order = self.orders[order_id]
            if order.state is OrderState.OPEN:
                self.orders[order_id] = order.model_copy(update={"state": OrderState.CLOSED})
            return self.orders[order_id]

        @router.get("/orders/{order_id}/metrics")
        async def metrics(order_id: UUID) -> OrderMetrics:
            return _metrics(order_id)

        return router

    def _verifications(self) -> APIRouter:
        router = APIRouter(prefix="/v1")

        @router.post("/orders/{order_id}/verify", status_code=201)
        async def verify(order_id: UUID, request: VerifyIn, response: Response) -> Order:
            source = self.orders[order_id]
            assert source.state is OrderState.COMPLETE
            fields = request.model_dump(exclude={"style"})
            order = OrderIn(campaign_id=source.campaign_id, purpose=OrderPurpose.VERIFY, **fields)
            return self._once(self.orders, order, lambda id_: self._new_order(id_, order), response)  # type: ignore[no-any-return]

        @router.get("/orders/{order_id}/yields")
        async def yields(order_id: UUID) -> Yields:
            counts = ((VerdictOutcome.CORRECT, 6), (VerdictOutcome.INCORRECT, 4))
            items = tuple(Yield(prompt="confirmative@1", outcome=outcome, n=n) for outcome, n in counts)
            return Yields(order_id=order_id, items=items)

        return router

    def _snapshots(self) -> APIRouter:
        router = APIRouter(prefix="/v1")

        @router.post("/snapshots", status_code=201)
        async def create_snapshot(snapshot: SnapshotIn, response: Response) -> Snapshot:
            def make(id_: UUID) -> Snapshot:
                return Snapshot(
                    id=id_,
                    campaign_id=snapshot.campaign_id,
                    key=snapshot.key,
                    recipe=snapshot.recipe,
                    status=SnapshotStatus.BUILDING,
                    created_at=NOW,
                )

            return self._once(self.snapshots, snapshot, make, response)  # type: ignore[no-any-return]

        @router.get("/snapshots/{snapshot_id}")
        async def get_snapshot(snapshot_id: UUID) -> Snapshot:
            snapshot = self.snapshots[snapshot_id]
            status, rows = self.snapshot_end(self.requests[snapshot_id])
            self.snapshots[snapshot_id] = snapshot.model_copy(
                update={"status": status, "rows": rows, "error": "the disk is full" if not rows else None}
            )
            return snapshot

        return router

    def _new_order(self, id_: UUID, order: OrderIn) -> Order:
        total = 0 if order.watermark_groups else self.questions_of(order)
        return Order(
            **dict(order),
            id=id_,
            state=OrderState.OPEN if total or order.watermark_groups else OrderState.COMPLETE,
            total=total,
            done=0,
            dead=0,
            created_at=NOW,
        )

    def _further(self, order: Order) -> Order:
        finished = min(order.total, order.done + order.dead + 5)
        dead = min(finished, self.dead_of(self.requests[order.id]))
        state = OrderState.COMPLETE if finished == order.total else OrderState.OPEN
        return order.model_copy(update={"done": finished - dead, "dead": dead, "state": state})

    def _generation(self) -> APIRouter:
        router = APIRouter(prefix="/v1")

        @router.get("/engine")
        async def engine() -> EngineInfo:
            return EngineInfo(
                model_name=self.engine_model,
                uri="/models/tiny",
                content_hash="abc".ljust(64, "0"),
                max_model_tokens=512,
                replicas=1,
                ready_replicas=1,
            )

        return router

    def _policies(self) -> APIRouter:
        router = APIRouter(prefix="/v1")

        @router.post("/policies", status_code=201)
        async def register(policy: PolicyIn) -> Policy:
            for known in self.policies.values():
                if (known.campaign_id, known.name) == (policy.campaign_id, policy.name):
                    if PolicyIn(**known.model_dump(include=set(PolicyIn.model_fields))) != policy:
                        raise ConflictError("policy_exists", f"{policy.name} exists with other content.")
                    return known
            return self.add_policy(policy)

        @router.get("/policies")
        async def list_policies(campaign: UUID) -> list[Policy]:
            return [policy for policy in self.policies.values() if policy.campaign_id == campaign]

        @router.get("/policies/{policy_id}")
        async def get_policy(policy_id: UUID) -> Policy:
            if policy_id not in self.policies:
                raise NotFoundError("policy", policy_id)
            return self.policies[policy_id]

        @router.post("/policies/{policy_id}/live")
        async def live(policy_id: UUID) -> Policy:
            policy = self.policies[policy_id]
            if policy.kind is PolicyKind.EXTERNAL and not self.teacher_answers:
                raise UnavailableError(
                    "external_unavailable", f"{policy.uri} does not answer (ConnectError); start it."
                )
            self.policies[policy_id] = self.policies[policy_id].model_copy(update={"live": True})
            return self.policies[policy_id]

        return router

    def add_policy(self, policy: PolicyIn) -> Policy:
        """Register a policy."""
        added = Policy(**policy.model_dump(), id=uuid4(), live=False, created_at=NOW)
        self.policies[added.id] = added
        return added

    def _training(self) -> APIRouter:
        router = APIRouter(prefix="/v1/runs")

        @router.post("", status_code=201)
        async def create_run(run: RunIn, response: Response) -> Run:
            def make(id_: UUID) -> Run:
                return Run(**dict(run), id=id_, state=RunState.QUEUED, step=0, steps=STEPS, created_at=NOW)

            return self._once(self.runs, run, make, response)  # type: ignore[no-any-return]

        @router.get("")
        async def list_runs(state: RunState | None = None, campaign: UUID | None = None) -> dict[str, Any]:
            found = [run for run in self.runs.values() if state in (None, run.state)]
            return {"items": [run.model_dump(mode="json") for run in found if campaign in (None, run.campaign_id)]}

        @router.get("/{run_id}")
        async def get_run(run_id: UUID) -> Run:
            run = self.runs[run_id]
            if run.state in (RunState.QUEUED, RunState.RUNNING):
                self.runs[run_id] = self._trained(run)
            return run

        @router.post("/{run_id}/cancel")
        async def cancel(run_id: UUID) -> Run:
            self.runs[run_id] = self.runs[run_id].model_copy(update={"state": RunState.CANCELLED})
            return self.runs[run_id]

        return router

    def _verification(self) -> APIRouter:
        router = APIRouter(prefix="/v1")

        @router.get("/verifiers")
        async def verifiers() -> Verifiers:
            return Verifiers(verifiers=self.verifiers)

        return router

    def _trained(self, run: Run) -> Run:
        if run.step + 2 < run.steps:
            return run.model_copy(update={"state": RunState.RUNNING, "step": run.step + 2})
        state, message = self.run_end(self.requests[run.id])
        if state is not RunState.SUCCEEDED:
            return run.model_copy(update={"state": state, "message": message, "failure": self.run_failure})
        version = run.first_version + (2 if run.order_id else 0)
        policy = self.add_policy(
            PolicyIn(campaign_id=run.campaign_id, name=run.publish_name, kind=PolicyKind.CHECKPOINT, version=version)
        )
        end = {"step": run.steps, "tokens": TOKENS_OF_A_RUN, "policy_id": policy.id, "policy_version": version}
        return run.model_copy(update={"state": state, **end})


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield


async def _ready() -> None:
    pass


class _Wire(httpx.AsyncBaseTransport):
    """The network between the cascade and one service."""

    def __init__(self, world: World, name: str, inner: httpx.AsyncBaseTransport) -> None:
        self._world = world
        self._name = name
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One call."""
        if self._name in self._world.down:
            raise httpx.ConnectError("refused", request=request)
        call = (self._name, request.method, request.url.path)
        self._world.before(*call)
        if self._world.during is not None:
            await self._world.during()
        response = await self._inner.handle_async_request(request)
        self._world.calls.append(call)
        self._world.after(*call)
        return response


def _metrics(order_id: UUID) -> OrderMetrics:
    estimate = Estimate(value=0.5, low=0.4, high=0.6, n=10)
    fields = {name: estimate for name in TrajectoryMetrics.model_fields if name not in ("n", "unscored")}
    overall = TrajectoryMetrics(n=10, unscored=0, **fields)
    return OrderMetrics(order_id=order_id, overall=overall, by_level={1: overall}, tokens_sampled=TOKENS_OF_AN_ORDER)


def is_teach(order: OrderIn) -> bool:
    """Whether the order is the teacher's."""
    return order.purpose is OrderPurpose.TEACH
