"""Batches: which groups wait, which are leased to which step, which were dropped."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, CursorResult, Integer, Uuid, any_, bindparam, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import BatchGroupRow, BatchRow, GroupRow, QuestionRow, RunFenceRow
from services.pool.router import UNUSABLE_STATES
from shared.contracts.batches import BatchLeaseRequest

UNUSABLE = "question-unusable"
_HOLD = text("""
    INSERT INTO pool.batch_groups (batch_id, group_id, position, staleness)
    SELECT :batch_id, g.id, leased.number - 1, greatest(0, :policy_version - g.policy_version)
    FROM unnest(:ids) WITH ORDINALITY AS leased (id, number) JOIN pool.groups g ON g.id = leased.id
""").bindparams(
    bindparam("batch_id", type_=Uuid), bindparam("policy_version", type_=Integer), bindparam("ids", type_=ARRAY(Uuid))
)


async def lock_run(session: AsyncSession, run_id: UUID, fence: int) -> int:
    """The highest fence seen of this run, with `fence` taken in; locks the run's batch calls against each other."""
    statement = insert(RunFenceRow).values(run_id=run_id, fence=fence)
    highest = func.greatest(RunFenceRow.fence, statement.excluded.fence)
    merged = statement.on_conflict_do_update(index_elements=["run_id"], set_={"fence": highest})
    return (await session.execute(merged.returning(RunFenceRow.fence))).scalar_one()


async def lock_order(session: AsyncSession, order_id: UUID) -> None:
    """One lease at a time takes groups of an order."""
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"batches:{order_id}", 0))))


async def lock(session: AsyncSession, batch_id: UUID) -> BatchRow | None:
    """One batch, locked."""
    return await session.get(BatchRow, batch_id, populate_existing=True, with_for_update=True)


async def group_ids(session: AsyncSession, batch_id: UUID) -> Sequence[UUID]:
    """The groups of a batch, in the order they were leased."""
    statement = (
        select(BatchGroupRow.group_id).where(BatchGroupRow.batch_id == batch_id).order_by(BatchGroupRow.position)
    )
    return (await session.execute(statement)).scalars().all()


async def extend_run(session: AsyncSession, run_id: UUID, lease_s: float) -> None:
    """A run that speaks keeps everything it leased."""
    await session.execute(
        update(BatchRow)
        .where(BatchRow.run_id == run_id, BatchRow.state == "leased")
        .values(lease_expires_at=func.greatest(BatchRow.lease_expires_at, func.now() + timedelta(seconds=lease_s)))
        .execution_options(synchronize_session=False)
    )


async def expired(session: AsyncSession, order_id: UUID) -> Sequence[UUID]:
    """Batches of an order whose lease is over, locked; one that its run is speaking about right now is left alone."""
    statement = (
        select(BatchRow.id)
        .where(BatchRow.order_id == order_id, BatchRow.state == "leased", BatchRow.lease_expires_at <= func.now())
        .order_by(BatchRow.id)
        .with_for_update(skip_locked=True)
    )
    return (await session.execute(statement)).scalars().all()


async def leased_from(session: AsyncSession, run_id: UUID, from_step: int) -> Sequence[BatchRow]:
    """Leased batches of a run at or after a step, locked."""
    statement = (
        select(BatchRow)
        .where(BatchRow.run_id == run_id, BatchRow.step >= from_step, BatchRow.state == "leased")
        .order_by(BatchRow.id)
        .with_for_update()
    )
    return (await session.execute(statement)).scalars().all()


async def release(session: AsyncSession, batch_ids: Sequence[UUID]) -> int:
    """Give the groups of these batches back to the pool; returns how many."""
    if not batch_ids:
        return 0
    gone = delete(BatchGroupRow).where(BatchGroupRow.batch_id.in_(batch_ids)).returning(BatchGroupRow.group_id)
    groups = list((await session.execute(gone)).scalars())
    await _set_consumption(session, groups, "waiting")
    released = update(BatchRow).where(BatchRow.id.in_(batch_ids)).values(state="released")
    await session.execute(released.execution_options(synchronize_session=False))
    return len(groups)


async def drop_stale(session: AsyncSession, order_id: UUID, oldest_version: int) -> int:
    """Drop waiting groups of versions before `oldest_version`; returns how many."""
    statement = (
        update(GroupRow)
        .where(
            GroupRow.order_id == order_id,
            GroupRow.consumption == "waiting",
            GroupRow.policy_version < oldest_version,
        )
        .values(consumption="dropped", drop_reason="stale")
        .execution_options(synchronize_session=False)
    )
    return await _count(session, statement)


async def drop_unusable(session: AsyncSession, order_id: UUID) -> int:
    """Drop waiting groups of questions that were quarantined or retracted; returns how many."""
    statement = (
        update(GroupRow)
        .where(GroupRow.order_id == order_id, GroupRow.consumption == "waiting", _of_unusable_question())
        .values(consumption="dropped", drop_reason=UNUSABLE)
        .execution_options(synchronize_session=False)
    )
    return await _count(session, statement)


def _of_unusable_question() -> ColumnElement[bool]:
    return (
        select(QuestionRow.id)
        .where(QuestionRow.id == GroupRow.question_id, QuestionRow.state.in_(UNUSABLE_STATES))
        .exists()
    )


async def holds_older(session: AsyncSession, batch_id: UUID, oldest_version: int) -> bool:
    """Whether a batch has a group of a version before `oldest_version`."""
    older = (
        select(GroupRow.id)
        .join(BatchGroupRow, BatchGroupRow.group_id == GroupRow.id)
        .where(BatchGroupRow.batch_id == batch_id, GroupRow.policy_version < oldest_version)
    )
    return (await session.execute(select(older.exists()))).scalar_one()


async def oldest_waiting(session: AsyncSession, order_id: UUID, oldest_version: int, limit: int) -> Sequence[UUID]:
    """The waiting groups that may be trained on, by id, oldest first, locked.

    Also one that came in late, after what is too old was dropped in this very transaction, is of `oldest_version` or newer.
    """
    statement = (
        select(GroupRow.id)
        .where(
            GroupRow.order_id == order_id,
            GroupRow.consumption == "waiting",
            GroupRow.policy_version >= oldest_version,
            ~_of_unusable_question(),
        )
        .order_by(GroupRow.sequence)
        .limit(limit)
        .with_for_update()
    )
    return (await session.execute(statement)).scalars().all()


async def lease(session: AsyncSession, batch_id: UUID, request: BatchLeaseRequest, groups: Sequence[UUID]) -> None:
    """Lease locked waiting groups as the batch of (run, step), also when an earlier one of that step was given back."""
    values = {
        "order_id": request.order_id,
        "policy_version": request.policy_version,
        "state": "leased",
        "lease_expires_at": func.now() + timedelta(seconds=request.lease_s),
    }
    statement = insert(BatchRow).values(id=batch_id, run_id=request.run_id, step=request.step, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))
    held = {"batch_id": batch_id, "policy_version": request.policy_version, "ids": list(groups)}
    await session.execute(_HOLD, held)
    await _set_consumption(session, groups, "leased")


async def acknowledge(session: AsyncSession, batch_id: UUID) -> None:
    """The batch is in a durable checkpoint: its groups are consumed."""
    await session.execute(
        update(BatchRow)
        .where(BatchRow.id == batch_id)
        .values(state="acknowledged", acknowledged_at=func.now())
        .execution_options(synchronize_session=False)
    )
    await _set_consumption(session, await group_ids(session, batch_id), "consumed")


async def _set_consumption(session: AsyncSession, ids: Sequence[UUID], consumption: str) -> None:
    await session.execute(
        update(GroupRow)
        .where(GroupRow.id == any_(bindparam("ids", list(ids), type_=ARRAY(Uuid))))
        .values(consumption=consumption)
        .execution_options(synchronize_session=False)
    )


async def _count(session: AsyncSession, statement: object) -> int:
    result = await session.execute(statement)  # type: ignore[call-overload]
    assert isinstance(result, CursorResult)
    return int(result.rowcount)
