"""What a new run is held against before it is stored: everything that would only fail hours later, in the trainer.

Refused: 422 when the run itself has to change, 409 when what it names is not ready. A run that is stored already is not
looked at again.
"""

from collections.abc import Awaitable
from typing import TypeVar
from uuid import UUID

from services.training.client import Peers
from shared.contracts.orders import Order, OrderPurpose
from shared.contracts.policies import TRAINABLE_KINDS, Policy
from shared.contracts.runs import RunIn, RunMethod
from shared.contracts.snapshots import Snapshot, SnapshotRecipe, SnapshotStatus
from shared.errors import ConflictError, HeadwaterError

T = TypeVar("T")


async def admit(peers: Peers, run: RunIn) -> None:
    """Raises: HeadwaterError 422 `other_method`, `not_found`, `policy_not_trainable`, `version_not_newer`, `order_not_standing`,
    `order_does_not_fit`, `snapshot_does_not_fit`; ConflictError `snapshot_not_ready`; UnavailableError when a peer does not answer.
    """
    _require_one_method(run)
    policies = f"GET /v1/policies?campaign={run.campaign_id}"
    _require_start(run, await _found(peers.policy(run.start_policy_id), "policy", run.start_policy_id, policies))
    if run.snapshot_id is not None:
        snapshots = f"GET /v1/snapshots?campaign={run.campaign_id}"
        snapshot = await _found(peers.snapshot(run.snapshot_id), "snapshot", run.snapshot_id, snapshots)
        _require_fitting_snapshot(run, snapshot)
        if snapshot.status is not SnapshotStatus.READY:
            way_out = "build another" if snapshot.status is SnapshotStatus.FAILED else "order the run when it is ready"
            raise ConflictError("snapshot_not_ready", f"Snapshot '{snapshot.key}' is {snapshot.status}; {way_out}.")
    if run.order_id is not None:
        orders = f"GET /v1/orders?campaign={run.campaign_id}"
        _require_fitting_order(run, await _found(peers.order(run.order_id), "order", run.order_id, orders))


def _require_one_method(run: RunIn) -> None:
    of_sft = ["sft"] if run.order_id is None else ["snapshot_id", "sft"]
    foreign = ["order_id", "rl"] if run.method is RunMethod.SFT else of_sft
    given = [f"'{name}'" for name in foreign if getattr(run, name) is not None]
    if given:
        raise _refused(
            "other_method",
            f"An {run.method} run does not use {' and '.join(given)}; leave that out, or change 'method'.",
        )


def _require_start(run: RunIn, start: Policy) -> None:
    if start.kind not in TRAINABLE_KINDS:
        kinds = ", ".join(TRAINABLE_KINDS)
        raise _refused(
            "policy_not_trainable",
            f"Policy '{start.name}' is of kind '{start.kind}' and has no weights to train; start from one of: {kinds}.",
        )
    if run.first_version <= start.version:
        raise _refused(
            "version_not_newer",
            f"'first_version' is {run.first_version}, and the start policy '{start.name}' has version {start.version}: "
            f"staleness counts versions, so it must be at least {start.version + 1}.",
        )


def _require_fitting_snapshot(run: RunIn, snapshot: Snapshot) -> None:
    is_offline_rl = snapshot.recipe is SnapshotRecipe.OFFLINE_RL
    if is_offline_rl is (run.method is RunMethod.RL):
        return
    if is_offline_rl:
        sentence = "holds wrong answers too; give the sft run a snapshot of another recipe, or order an rl run."
    else:
        sentence = "has no rewards; give the rl run one of recipe 'offline-rl' or an 'order_id', or order an sft run."
    raise _refused("snapshot_does_not_fit", f"Snapshot '{snapshot.key}' of recipe '{snapshot.recipe}' {sentence}")


def _require_fitting_order(run: RunIn, order: Order) -> None:
    if order.watermark_groups is None or order.purpose is not OrderPurpose.ROLLOUT:
        raise _refused(
            "order_not_standing",
            f"Order '{order.key}' is no standing order of rollouts (purpose '{order.purpose}', watermark_groups "
            f"{order.watermark_groups}); RL trains on those only.",
        )
    if run.rl is None:
        return
    if order.k != run.rl.k:
        raise _refused(
            "order_does_not_fit", f"Order '{order.key}' samples {order.k} responses a question, rl.k is {run.rl.k}."
        )
    if order.watermark_groups < run.rl.groups_per_step:
        raise _refused(
            "order_does_not_fit",
            f"Order '{order.key}' keeps {order.watermark_groups} groups ahead, and a step waits for "
            f"{run.rl.groups_per_step}: lower rl.groups_per_step, or make an order with more watermark_groups.",
        )
    if order.on_demand != run.rl.sync:
        raise _refused(
            "order_does_not_fit",
            f"Order '{order.key}' has on_demand = {order.on_demand} and rl.sync is {run.rl.sync}: they must be the same, or rollouts "
            "would be made at other times than the run is for.",
        )


async def _found(asked: Awaitable[T], what: str, identifier: UUID, where: str) -> T:
    try:
        return await asked
    except HeadwaterError as error:
        if error.status != 404:
            raise
        raise _refused("not_found", f"There is no {what} {identifier}; {where} lists what there is.") from error


def _refused(code: str, sentence: str) -> HeadwaterError:
    return HeadwaterError(code, sentence, 422)
