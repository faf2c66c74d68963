"""Runs that would only fail in the trainer are refused where they are ordered."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from services.training.admission import admit
from services.training.client import Peers
from shared.contracts.generation import SamplingParameters
from shared.contracts.orders import Order, OrderPurpose, OrderState
from shared.contracts.policies import Policy, PolicyKind
from shared.contracts.recipe import RlRecipe, SftRecipe
from shared.contracts.runs import RunIn, RunMethod
from shared.contracts.snapshots import Snapshot, SnapshotRecipe, SnapshotStatus
from shared.errors import HeadwaterError, NotFoundError, UnavailableError

NOW = datetime(2025, 1, 1, tzinfo=UTC)
CAMPAIGN, START, SNAPSHOT, ORDER = uuid4(), uuid4(), uuid4(), uuid4()


@dataclass
class There:
    """What the other services have."""

    things: dict[UUID, Any] = field(default_factory=dict)

    async def policy(self, policy_id: UUID) -> Policy:
        """One policy."""
        return cast("Policy", self._get("policy", policy_id))

    async def snapshot(self, snapshot_id: UUID) -> Snapshot:
        """One snapshot."""
        return cast("Snapshot", self._get("snapshot", snapshot_id))

    async def order(self, order_id: UUID) -> Order:
        """One order."""
        return cast("Order", self._get("order", order_id))

    def _get(self, what: str, identifier: UUID) -> Any:
        if identifier not in self.things:
            raise NotFoundError(what, identifier)
        return self.things[identifier]


def policy(**changes: Any) -> Policy:
    values = {"campaign_id": CAMPAIGN, "name": "sft-1", "kind": PolicyKind.ADAPTER, "version": 2, "id": START}
    return Policy.model_validate(values | {"live": False, "created_at": NOW} | changes)


def snapshot(
    status: SnapshotStatus = SnapshotStatus.READY, recipe: SnapshotRecipe = SnapshotRecipe.DISTILL
) -> Snapshot:
    return Snapshot(id=SNAPSHOT, campaign_id=CAMPAIGN, key="teach", recipe=recipe, status=status, created_at=NOW)


def order(**changes: Any) -> Order:
    values = {"campaign_id": CAMPAIGN, "key": "rl", "purpose": OrderPurpose.ROLLOUT, "policy_id": START, "k": 8}
    values |= {"policy_version": 2, "sampling": SamplingParameters(), "watermark_groups": 64, "id": ORDER}
    values |= {"state": OrderState.OPEN, "total": 0, "done": 0, "dead": 0, "created_at": NOW}
    return Order.model_validate(values | changes)


def run(method: RunMethod = RunMethod.RL, **changes: Any) -> RunIn:
    values: dict[str, Any] = {"campaign_id": CAMPAIGN, "key": "a", "method": method, "start_policy_id": START}
    sft = {"snapshot_id": SNAPSHOT, "sft": SftRecipe()}
    values |= sft if method is RunMethod.SFT else {"order_id": ORDER, "rl": RlRecipe()}
    return RunIn.model_validate(values | {"publish_name": "a", "first_version": 3} | changes)


async def refusal(wanted: RunIn, **changed: Any) -> HeadwaterError:
    """The refusal of a run where everything is in order but what is `changed`; None: it is not there."""
    things = {"policy": policy(), "snapshot": snapshot(), "order": order()} | changed
    there = There({thing.id: thing for thing in things.values() if thing is not None})
    with pytest.raises(HeadwaterError) as refused:
        await admit(cast("Peers", there), wanted)
    return refused.value


@pytest.mark.parametrize("method", list(RunMethod))
async def test_a_run_that_fits_is_taken(method: RunMethod) -> None:
    there = There({START: policy(), SNAPSHOT: snapshot(), ORDER: order()})
    await admit(cast("Peers", there), run(method))


@pytest.mark.parametrize("first_version", [1, 2])
async def test_a_version_that_is_not_newer_than_the_starts_is_refused(first_version: int) -> None:
    refused = await refusal(run(first_version=first_version))
    assert (refused.status, refused.code) == (422, "version_not_newer")
    assert "at least 3" in refused.message


@pytest.mark.parametrize(
    ("wanted", "missing", "path"),
    [
        (run(), "policy", "GET /v1/policies?campaign="),
        (run(RunMethod.SFT), "snapshot", "GET /v1/snapshots?campaign="),
        (run(), "order", "GET /v1/orders?campaign="),
    ],
)
async def test_what_is_not_there_is_named_with_where_to_look(wanted: RunIn, missing: str, path: str) -> None:
    refused = await refusal(wanted, **{missing: None})
    assert (refused.status, refused.code) == (422, "not_found")
    assert f"There is no {missing}" in refused.message
    assert path in refused.message


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (run(RunMethod.SFT, order_id=ORDER), "'order_id'"),
        (run(RunMethod.SFT, order_id=ORDER, rl=RlRecipe()), "'order_id' and 'rl'"),
        (run(snapshot_id=SNAPSHOT), "'snapshot_id'"),
        (run(sft=SftRecipe()), "'sft'"),
    ],
)
async def test_what_belongs_to_the_other_method_is_refused(wanted: RunIn, said: str) -> None:
    refused = await refusal(wanted)
    assert (refused.status, refused.code) == (422, "other_method")
    assert said in refused.message


@pytest.mark.parametrize("kind", [PolicyKind.EXTERNAL, PolicyKind.REFERENCE])
async def test_a_policy_without_weights_is_refused(kind: PolicyKind) -> None:
    refused = await refusal(run(), policy=policy(kind=kind))
    assert (refused.status, refused.code) == (422, "policy_not_trainable")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"watermark_groups": None}, "order_not_standing"),
        ({"purpose": OrderPurpose.PROBE}, "order_not_standing"),
        ({"k": 4}, "order_does_not_fit"),
        ({"watermark_groups": 15}, "order_does_not_fit"),
        ({"on_demand": True}, "order_does_not_fit"),
    ],
)
async def test_an_order_that_no_step_could_be_made_of_is_refused(changes: dict[str, Any], code: str) -> None:
    refused = await refusal(run(), order=order(**changes))
    assert (refused.status, refused.code) == (422, code)


@pytest.mark.parametrize("status", [SnapshotStatus.BUILDING, SnapshotStatus.FAILED])
async def test_a_snapshot_that_is_not_ready_is_refused(status: SnapshotStatus) -> None:
    refused = await refusal(run(RunMethod.SFT), snapshot=snapshot(status))
    assert (refused.status, refused.code) == (409, "snapshot_not_ready")


OFFLINE: dict[str, Any] = {"order_id": None, "snapshot_id": SNAPSHOT}


@pytest.mark.parametrize("recipe", list(SnapshotRecipe))
async def test_a_snapshot_is_trained_on_by_the_method_that_it_was_built_for(recipe: SnapshotRecipe) -> None:
    is_offline_rl = recipe is SnapshotRecipe.OFFLINE_RL
    fitting, other = run(**OFFLINE), run(RunMethod.SFT)
    fitting, other = (fitting, other) if is_offline_rl else (other, fitting)
    await admit(cast("Peers", There({START: policy(), SNAPSHOT: snapshot(recipe=recipe)})), fitting)
    refused = await refusal(other, snapshot=snapshot(SnapshotStatus.BUILDING, recipe))
    assert (refused.status, refused.code) == (422, "snapshot_does_not_fit")
    assert f"'{recipe}'" in refused.message
    assert f"order an {fitting.method} run" in refused.message


async def test_a_peer_that_does_not_answer_refuses_nothing() -> None:
    class Down(There):
        async def policy(self, policy_id: UUID) -> Policy:
            raise UnavailableError("service_unavailable", f"generation does not answer about {policy_id}")

    with pytest.raises(UnavailableError):
        await admit(cast("Peers", Down()), run())
