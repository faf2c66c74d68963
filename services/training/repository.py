"""Every query on training's tables.

Invariant: whatever a trainer writes is conditional on its fencing token and on the run still running (or pausing); a
statement that touches no row means that the lease was lost (to a newer worker, or by cancellation).
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.elements import ColumnElement

from services.training.models import run_metrics, runs
from shared.contracts.runs import RunFailure, RunIn, RunMetric, RunState

# `*` so that a row of any columns is one.
RunRow = Row[*tuple[Any, ...]]


# A trainer has the run.
HELD = (RunState.RUNNING, RunState.PAUSING)


def _lease_is_over(state: RunState = RunState.RUNNING) -> ColumnElement[bool]:
    return (runs.c.state == state) & (runs.c.lease_expires_at < func.now())


def _reads(state: RunState) -> ColumnElement[bool]:
    """Whether a run reads so: without a living trainer one that was running is queued, one that was pausing is paused."""
    if state is RunState.QUEUED:
        return or_(runs.c.state == state, _lease_is_over())
    if state is RunState.PAUSED:
        return or_(runs.c.state == state, _lease_is_over(RunState.PAUSING))
    if state in HELD:
        return (runs.c.state == state) & ~_lease_is_over(state)
    return runs.c.state == state


def _run_columns() -> tuple[Any, ...]:
    """Every column, and `reads`: the state as the API has it."""
    silent = ((_reads(state), str(state)) for state in (RunState.QUEUED, RunState.PAUSED))
    return (*runs.c, case(*silent, else_=runs.c.state).label("reads"))


async def insert_run(session: AsyncSession, run_id: UUID, run: RunIn, steps: int) -> bool:
    """Store a new run; False when (campaign, key) exists."""
    statement = (
        insert(runs)
        .values(
            id=run_id,
            campaign_id=run.campaign_id,
            key=run.key,
            spec=run.model_dump(mode="json"),
            state=RunState.QUEUED,
            steps=steps,
        )
        .on_conflict_do_nothing(constraint="runs_campaign_key")
        .returning(runs.c.id)
    )
    return (await session.execute(statement)).first() is not None


async def run_by_id(session: AsyncSession, run_id: UUID) -> RunRow | None:
    """One run."""
    return (await session.execute(select(*_run_columns()).where(runs.c.id == run_id))).first()


async def run_by_key(session: AsyncSession, campaign_id: UUID, key: str) -> RunRow | None:
    """The run of a campaign with this key."""
    statement = select(*_run_columns()).where(runs.c.campaign_id == campaign_id, runs.c.key == key)
    return (await session.execute(statement)).first()


async def list_runs(
    session: AsyncSession, campaign_id: UUID | None, state: RunState | None, limit: int
) -> Sequence[RunRow]:
    """Runs, oldest first. An expired lease counts as queued."""
    statement = select(*_run_columns()).order_by(runs.c.created_at, runs.c.id).limit(limit)
    if campaign_id is not None:
        statement = statement.where(runs.c.campaign_id == campaign_id)
    if state is not None:
        statement = statement.where(_reads(state))
    return (await session.execute(statement)).all()


def _silent_attempt() -> ColumnElement[str]:
    """What is said of an attempt whose lease is over: its worker died, hung, or could not reach the database."""
    return func.concat(
        "Attempt ",
        runs.c.attempts,
        " on ",
        runs.c.worker,
        " was silent for a whole lease; the next one goes on from its newest checkpoint.",
    )


async def claim_run(session: AsyncSession, run_id: UUID, worker: str, lease_s: float) -> RunRow | None:
    """Lease a run that waits or whose lease is over, with the next fencing token; None when there is nothing to take.

    Two workers that ask at once do not wait for each other: the row is skipped when it is locked.
    """
    free = (
        select(runs.c.id)
        .where(
            runs.c.id == run_id,
            _reads(RunState.QUEUED),
            or_(runs.c.not_before.is_(None), runs.c.not_before <= func.now()),
        )
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    statement = (
        update(runs)
        .where(runs.c.id == free)
        .values(
            state=RunState.RUNNING,
            fence=runs.c.fence + 1,
            attempts=runs.c.attempts + 1,
            stalled_attempts=runs.c.stalled_attempts + 1,
            worker=worker,
            # Of the attempt before, when it did not live to say why it ended.
            message=case((_lease_is_over(), _silent_attempt()), else_=runs.c.message),
            failure=case((_lease_is_over(), None), else_=runs.c.failure),
            lease_expires_at=func.now() + timedelta(seconds=lease_s),
            started_at=func.coalesce(runs.c.started_at, func.now()),
        )
        .returning(*runs.c)
    )
    return (await session.execute(statement)).first()


async def _fenced(session: AsyncSession, run_id: UUID, fence: int, **values: object) -> bool:
    statement = (
        update(runs)
        .where(runs.c.id == run_id, runs.c.fence == fence, runs.c.state.in_(HELD))
        .values(**values)
        .returning(runs.c.id)
    )
    return (await session.execute(statement)).first() is not None


async def lock_held(session: AsyncSession, run_id: UUID, fence: int) -> bool:
    """Whether the lease is held; until the transaction ends nobody else can take or end the run."""
    held = (runs.c.id == run_id) & (runs.c.fence == fence) & runs.c.state.in_(HELD)
    return (await session.execute(select(runs.c.id).where(held).with_for_update())).first() is not None


async def beat(
    session: AsyncSession, run_id: UUID, fence: int, step: int, tokens: int, lease_s: float, message: str | None = None
) -> RunState | None:
    """Extend the lease and record progress; None when the lease is lost. `message` (if any) takes the place of the last one."""
    values: dict[str, object] = {"step": step, "tokens": tokens}
    if message is not None:
        values |= {"message": message, "failure": None}
    lease_expires_at = func.now() + timedelta(seconds=lease_s)
    if not await _fenced(session, run_id, fence, lease_expires_at=lease_expires_at, **values):
        return None
    state = await session.execute(select(runs.c.state).where(runs.c.id == run_id))
    return RunState(state.scalar_one())


async def record_checkpoint(session: AsyncSession, run_id: UUID, fence: int, step: int) -> bool:
    """A checkpoint of `step` is durable: the attempt got further than the one before; False when the lease is lost."""
    return await _fenced(session, run_id, fence, checkpoint_step=step, stalled_attempts=0, failure=None, message="")


async def record_success(
    session: AsyncSession, run_id: UUID, fence: int, policy_id: UUID, policy_version: int, step: int, tokens: int
) -> bool:
    """The run is over and its policy registered; False when the lease is lost."""
    return await _fenced(
        session,
        run_id,
        fence,
        state=RunState.SUCCEEDED,
        policy_id=policy_id,
        policy_version=policy_version,
        step=step,
        tokens=tokens,
        message="",
        failure=None,
        lease_expires_at=None,
        finished_at=func.now(),
    )


async def record_failure(session: AsyncSession, run_id: UUID, fence: int, failure: RunFailure, message: str) -> bool:
    """The run is over with a named reason; False when the lease is lost."""
    return await _fenced(
        session,
        run_id,
        fence,
        state=RunState.FAILED,
        failure=failure,
        message=message,
        lease_expires_at=None,
        finished_at=func.now(),
    )


async def requeue(
    session: AsyncSession,
    run_id: UUID,
    fence: int,
    message: str,
    delay_s: float,
    *,
    blameless: bool,
    failure: RunFailure | None = None,
) -> bool:
    """Give the run back, to be resumed from its checkpoint after `delay_s`; `blameless` does not count the attempt.

    `failure` and `message` say why the attempt ended, until one reaches a new checkpoint.
    """
    return await _fenced(
        session,
        run_id,
        fence,
        state=_given_back(),
        failure=failure,
        message=message,
        not_before=func.now() + timedelta(seconds=delay_s),
        lease_expires_at=None,
        stalled_attempts=func.greatest(runs.c.stalled_attempts - int(blameless), 0),
    )


def _given_back() -> ColumnElement[str]:
    """The state of a run that its trainer lets go of."""
    return case((runs.c.state == RunState.PAUSING, str(RunState.PAUSED)), else_=str(RunState.QUEUED))


async def record_pause(session: AsyncSession, run_id: UUID, fence: int, step: int, tokens: int) -> bool:
    """The trainer has ended for a pause; queued when somebody resumed the run meanwhile. False when the lease is lost."""
    return await _fenced(
        session, run_id, fence, state=_given_back(), step=step, tokens=tokens, message="", lease_expires_at=None
    )


async def _change(session: AsyncSession, run_id: UUID, condition: ColumnElement[bool], **values: object) -> bool:
    statement = update(runs).where(runs.c.id == run_id, condition).values(**values).returning(runs.c.id)
    return (await session.execute(statement)).first() is not None


async def cancel(session: AsyncSession, run_id: UUID) -> bool:
    """End a run that is not over; its trainer loses the lease. False when it was over."""
    return await _change(
        session,
        run_id,
        runs.c.state.in_([RunState.QUEUED, RunState.PAUSED, *HELD]),
        state=RunState.CANCELLED,
        lease_expires_at=None,
        finished_at=func.now(),
    )


async def pause(session: AsyncSession, run_id: UUID) -> bool:
    """Pause a run that waits, or ask its trainer to; False when it neither waits nor runs."""
    return await _change(
        session,
        run_id,
        runs.c.state.in_([RunState.QUEUED, RunState.RUNNING]),
        state=case((_reads(RunState.QUEUED), str(RunState.PAUSED)), else_=str(RunState.PAUSING)),
    )


async def resume(session: AsyncSession, run_id: UUID) -> bool:
    """Let a paused run wait for a worker, with all its attempts; one that is still pausing runs on. False when it is neither."""
    return await _change(
        session,
        run_id,
        runs.c.state.in_([RunState.PAUSED, RunState.PAUSING]),
        state=case((_reads(RunState.PAUSED), str(RunState.QUEUED)), else_=str(RunState.RUNNING)),
        not_before=None,
        stalled_attempts=0,
    )


async def open_run_ids(session: AsyncSession) -> Sequence[UUID]:
    """Runs that wait for a worker."""
    statement = select(runs.c.id).where(_reads(RunState.QUEUED))
    return (await session.execute(statement.order_by(runs.c.created_at))).scalars().all()


async def open_starts(session: AsyncSession) -> set[UUID]:
    """The policies that runs which have not ended start from."""
    ended = (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)
    statement = select(runs.c.spec["start_policy_id"].astext).where(runs.c.state.not_in(ended))
    return {UUID(policy_id) for policy_id in (await session.execute(statement)).scalars()}


async def finished_runs(session: AsyncSession, run_ids: Sequence[UUID]) -> Sequence[RunRow]:
    """Of these runs, id, state and fence of those that are over."""
    statement = select(runs.c.id, runs.c.state, runs.c.fence)
    return (await session.execute(statement.where(runs.c.id.in_(run_ids), runs.c.finished_at.is_not(None)))).all()


async def upsert_metrics(session: AsyncSession, run_id: UUID, metrics: Sequence[RunMetric]) -> None:
    """Store logged points; a resumed attempt overwrites the steps that it repeats."""
    if not metrics:
        return
    rows = [{"run_id": run_id, "step": metric.step, "values": metric.values, "at": metric.at} for metric in metrics]
    statement = insert(run_metrics)
    statement = statement.on_conflict_do_update(
        index_elements=[run_metrics.c.run_id, run_metrics.c.step],
        set_={"values": statement.excluded["values"], "at": statement.excluded.at},
    )
    await session.execute(statement, rows)


async def newest_points(session: AsyncSession) -> Sequence[RunRow]:
    """Of every running run: run_id, policy (the name that it will publish), step, and what it logged last."""
    newest = (
        select(run_metrics.c["values"])
        .where(run_metrics.c.run_id == runs.c.id)
        .order_by(run_metrics.c.step.desc())
        .limit(1)
        .scalar_subquery()
    )
    statement = select(
        runs.c.id.label("run_id"),
        runs.c.spec["publish_name"].astext.label("policy"),
        runs.c.step,
        newest.label("logged"),
    ).where(runs.c.state == RunState.RUNNING)
    return (await session.execute(statement)).all()


async def list_metrics(session: AsyncSession, run_id: UUID, after: int, limit: int) -> Sequence[RunRow]:
    """Logged points of a run in the order of their steps, beginning after step `after`."""
    statement = (
        select(run_metrics.c.step, run_metrics.c["values"].label("logged"), run_metrics.c.at)
        .where(run_metrics.c.run_id == run_id, run_metrics.c.step > after)
        .order_by(run_metrics.c.step)
        .limit(limit)
    )
    return (await session.execute(statement)).all()
