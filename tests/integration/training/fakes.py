"""A pool and a generation in one small HTTP app on a real port: what a trainer asks of them, kept in memory."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pyarrow
import pyarrow.parquet
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from shared.arrow import MEDIA_TYPE
from shared.arrow.lease import PackedLease, write
from shared.artifacts import hash_directory
from shared.contracts.batches import BatchAck, BatchLease, BatchLeaseRequest, BatchRelease
from shared.contracts.generation import SamplingParameters
from shared.contracts.listing import OrderPage
from shared.contracts.orders import Group, Order, OrderPolicy, OrderPurpose, OrderState
from shared.contracts.policies import Policy, PolicyIn, PolicyKind, WeightsState
from shared.contracts.snapshots import Snapshot, SnapshotRecipe, SnapshotStatus
from shared.packed import pack_group

NOW = datetime(2025, 1, 1, tzinfo=UTC)


def _order(campaign_id: UUID, state: OrderState, policy: OrderPolicy) -> Order:
    return Order(
        id=uuid4(),
        campaign_id=campaign_id,
        key="rl",
        purpose=OrderPurpose.ROLLOUT,
        policy_id=policy.policy_id,
        policy_version=policy.policy_version,
        k=4,
        sampling=SamplingParameters(),
        state=state,
        total=0,
        done=0,
        dead=0,
        created_at=NOW,
    )


@dataclass
class FakePeers:
    """What the trainer did to its peers."""

    policies: dict[UUID, Policy] = field(default_factory=dict)
    snapshots: dict[UUID, Snapshot] = field(default_factory=dict)
    waiting: list[Group] = field(default_factory=list)
    leased: dict[int, BatchLease] = field(default_factory=dict)
    requests: list[BatchLeaseRequest] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    released_from: list[int] = field(default_factory=list)
    order_policies: list[OrderPolicy] = field(default_factory=list)
    live: list[UUID] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)
    broken_loads: int = 0
    busy_after: int | None = None  # so many more questions about a policy are answered
    asked_while_busy: int = 0
    url: str = ""

    def add_base(self, campaign_id: UUID, directory: Path) -> Policy:
        """Register full weights."""
        policy = PolicyIn(
            campaign_id=campaign_id,
            name="base",
            kind=PolicyKind.BASE,
            uri=str(directory),
            content_hash=hash_directory(directory),
        )
        return self.register(policy)

    def register(self, policy: PolicyIn) -> Policy:
        """Idempotent by (campaign, name, content hash)."""
        for known in self.policies.values():
            if (known.campaign_id, known.name) == (policy.campaign_id, policy.name):
                assert known.content_hash == policy.content_hash, f"{policy.name} published twice, differently"
                return known
        registered = Policy(**policy.model_dump(), id=uuid4(), live=False, created_at=NOW)
        self.policies[registered.id] = registered
        return registered

    def add_snapshot(
        self,
        campaign_id: UUID,
        directory: Path,
        rows: list[dict[str, Any]],
        recipe: SnapshotRecipe = SnapshotRecipe.DISTILL,
    ) -> Snapshot:
        """Write rows as a ready snapshot."""
        path = directory / f"{uuid4()}.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        snapshot = Snapshot(
            id=uuid4(),
            campaign_id=campaign_id,
            key="teach",
            recipe=recipe,
            status=SnapshotStatus.READY,
            uri=str(path),
            content_hash=hashlib.sha256(path.read_bytes()).hexdigest(),
            rows=len(rows),
            created_at=NOW,
        )
        self.snapshots[snapshot.id] = snapshot
        return snapshot

    def lease(self, request: BatchLeaseRequest) -> BatchLease:
        """The same (run, step) gets the same batch."""
        self.requests.append(request)
        if request.step not in self.leased and len(self.waiting) >= request.groups:
            groups, self.waiting = self.waiting[: request.groups], self.waiting[request.groups :]
            self.leased[request.step] = BatchLease(batch_id=uuid4(), groups=tuple(groups), waiting=len(self.waiting))
        return self.leased.get(request.step) or BatchLease(batch_id=None, waiting=len(self.waiting))

    def app(self) -> FastAPI:
        """The routes of both services that a trainer uses."""
        app = FastAPI()

        @app.get("/v1/policies/{policy_id}")
        async def policy(policy_id: UUID) -> Any:
            if self.busy_after == 0:
                self.asked_while_busy += 1
                return JSONResponse({}, 503)
            if self.busy_after is not None:
                self.busy_after -= 1
            return self.policies.get(policy_id) or JSONResponse({}, 404)

        @app.get("/v1/policies")
        async def policies(campaign: UUID) -> list[Policy]:
            return [policy for policy in self.policies.values() if policy.campaign_id == campaign]

        @app.post("/v1/policies")
        async def register(body: PolicyIn) -> Policy:
            return self.register(body)

        @app.post("/v1/policies/{policy_id}/live")
        async def make_live(policy_id: UUID) -> Any:
            if self.broken_loads:
                self.broken_loads -= 1
                return JSONResponse({}, 500)
            self.live.append(policy_id)
            return self.policies[policy_id]

        @app.post("/v1/policies/{policy_id}/prune")
        async def prune(policy_id: UUID) -> Policy:
            policy = self.policies[policy_id].model_copy(update={"weights": WeightsState.PRUNED})
            self.policies[policy_id] = policy
            self.pruned.append(policy.name)
            return policy

        @app.get("/v1/snapshots/{snapshot_id}")
        async def snapshot(snapshot_id: UUID) -> Any:
            return self.snapshots.get(snapshot_id) or JSONResponse({}, 404)

        self._add_batches(app)
        return app

    def _add_batches(self, app: FastAPI) -> None:
        @app.put("/v1/orders/{order_id}/policy")
        async def use_policy(order_id: UUID, body: OrderPolicy) -> Any:
            if self.order_policies and body.policy_version < self.order_policies[-1].policy_version:
                return JSONResponse({"error": {"code": "older_policy", "message": "It does not go back."}}, 409)
            self.order_policies.append(body)
            return {}

        @app.get("/v1/orders")
        async def orders(campaign: UUID, state: OrderState) -> OrderPage:
            sampled = self.order_policies[-1:]
            return OrderPage(items=tuple(_order(campaign, state, policy) for policy in sampled), next=None)

        @app.post("/v1/batches/lease")
        async def lease(body: BatchLeaseRequest) -> Response:
            leased = self.lease(body)
            groups = [pack_group(group) for group in leased.groups]
            packed = PackedLease(leased.batch_id, groups, leased.waiting, leased.dropped_stale)
            return Response(bytes(write(packed)), media_type=MEDIA_TYPE)

        @app.post("/v1/batches/release")
        async def release(body: BatchRelease) -> dict[str, str]:
            self.released_from.append(body.from_step)
            kept = set(self.acknowledged)
            for step in [step for step in self.leased if step >= body.from_step and step not in kept]:
                self.waiting = [*self.leased.pop(step).groups, *self.waiting]
            return {}

        @app.post("/v1/batches/{batch_id}/ack")
        async def acknowledge(batch_id: UUID, body: BatchAck) -> Any:
            if body.step in self.lost:
                self.lost.remove(body.step)
                del self.leased[body.step]
                return JSONResponse({"error": {"code": "batch_lost", "message": "It went back to the pool."}}, 409)
            assert self.leased[body.step].batch_id == batch_id
            self.acknowledged.append(body.step)
            return {}

    @contextmanager
    def serving(self) -> Iterator["FakePeers"]:
        """Serve on a free port for as long as the block lasts."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            server = uvicorn.Server(uvicorn.Config(self.app(), log_level="warning", lifespan="off"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()
            while not server.started:
                time.sleep(0.01)
            yield self
            server.should_exit = True
            thread.join()
