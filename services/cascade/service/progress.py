"""Progress of a stage, read from the order, snapshot or run that it made."""

from uuid import UUID

from services.cascade.client import Peers
from services.cascade.models import StageRow
from services.cascade.service.stage import halted_by
from shared.contracts.campaigns import CampaignStatus, StageName
from shared.contracts.orders import Order, OrderIn, OrderState
from shared.contracts.runs import Run, RunState
from shared.contracts.snapshots import Snapshot, SnapshotStatus
from shared.errors import HeadwaterError

_RUN_STANDS_STILL = (RunState.QUEUED, RunState.PAUSING, RunState.PAUSED)
RUN_ENDED = (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


def show_order(stage: StageRow, order: Order) -> None:
    """A finite order counts its questions; those that could not be sampled are counted as done and named."""
    stage.done, stage.total, stage.unit = order.done + order.dead, order.total, "questions"
    stage.detail = f"{order.dead} could not be sampled" if order.dead else ""


def show_snapshot(stage: StageRow, snapshot: Snapshot) -> None:
    """A snapshot has its rows at once, when it is ready."""
    ready = snapshot.status is SnapshotStatus.READY
    stage.done, stage.total, stage.unit = snapshot.rows, snapshot.rows if ready else 0, "rows"
    rounds = [f"{count} of {n} round{'s' if n > 1 else ''}" for n, count in sorted(snapshot.rounds.items())]
    dropped = [f"{count} {reason}" for reason, count in sorted(snapshot.dropped.items())]
    stage.detail = "; ".join(
        part for part in (", ".join(rounds), f"left out: {', '.join(dropped)}" if dropped else "") if part
    )


def show_run(stage: StageRow, run: Run) -> None:
    """A run counts its steps, and says what it waits for."""
    stage.done, stage.total, stage.unit = run.step, run.steps, "steps"
    shown = run.state if run.state in _RUN_STANDS_STILL else ""
    stage.detail = ": ".join(part for part in (shown, run.message) if part)
    stage.tokens_trained = run.tokens


async def refresh(stage: StageRow, peers: Peers) -> None:
    """Bring the shown progress up to now. Raises: HeadwaterError of a peer."""
    if stage.run_id:
        show_run(stage, await peers.training.run(stage.run_id))
    elif stage.snapshot_id:
        show_snapshot(stage, await peers.pool.snapshot(stage.snapshot_id))
    elif stage.order_id:
        show_order(stage, await peers.pool.order(stage.order_id))


async def abandon(stage: StageRow, peers: Peers) -> None:
    """Stop what the stage has under way, so that nothing works for a campaign that has ended. Idempotent.

    Raises: HeadwaterError of a peer.
    """
    if stage.run_id and (await peers.training.run(stage.run_id)).state not in RUN_ENDED:
        await peers.training.cancel_run(stage.run_id)
    order_id = stage.order_id or await _unnoticed_order(stage, peers)
    if order_id and (await peers.pool.order(order_id)).state is OrderState.OPEN:
        await peers.pool.close_order(order_id)
    stage.order_id = order_id


async def _unnoticed_order(stage: StageRow, peers: Peers) -> UUID | None:
    """The order that the pool made before somebody died, or did not answer in time: asked for again by its key."""
    if stage.request is None or "purpose" not in stage.request:  # only an order has one
        return None
    try:
        return (await peers.pool.create_order(OrderIn.model_validate(stage.request))).id
    except HeadwaterError as error:
        if halted_by(error, StageName(stage.name)).status is CampaignStatus.WAITING:
            raise
        return None  # refused now, and so before: there is none
