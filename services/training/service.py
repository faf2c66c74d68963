"""Decisions about runs: create once, read, cancel, pause and resume. Executing a run is the worker's (`attempt`) and the trainer's."""

from uuid import UUID, uuid5

from sqlalchemy.ext.asyncio import AsyncSession

from services.training import repository
from services.training.repository import RunRow
from shared.contracts.runs import Run, RunIn, RunMetric, RunState
from shared.errors import ConflictError, NotFoundError

_NAMESPACE = UUID("6f1c2f44-6a0e-5d5b-9a7e-54c1a1f0b7d2")


def planned_steps(run: RunIn) -> int:
    """Optimiser steps that the recipe asks for."""
    recipe = run.recipe
    if recipe is None:
        raise ValueError("a run has an sft or an rl recipe")
    return recipe.steps


def run_of(row: RunRow) -> Run:
    """The wire form."""
    return Run(
        **row.spec,
        id=row.id,
        state=RunState(row.reads),
        step=row.step,
        steps=row.steps,
        tokens=row.tokens,
        attempts=row.attempts,
        failure=row.failure,
        message=row.message,
        policy_id=row.policy_id,
        policy_version=row.policy_version,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def id_of_run(campaign_id: UUID, key: str) -> UUID:
    """The id of the run with this key, stored or not."""
    return uuid5(_NAMESPACE, f"{campaign_id}/{key}")


async def is_stored(session: AsyncSession, run: RunIn) -> bool:
    """Whether the campaign has a run with this key."""
    return await repository.run_by_key(session, run.campaign_id, run.key) is not None


async def create_run(session: AsyncSession, run: RunIn) -> tuple[Run, bool]:
    """Store a run once per (campaign, key); returns it and whether it is new.

    Raises: ConflictError `run_conflict` when the key stands for another run.
    """
    new_id = id_of_run(run.campaign_id, run.key)
    is_new = await repository.insert_run(session, new_id, run, planned_steps(run))
    row = await repository.run_by_key(session, run.campaign_id, run.key)
    if row is None:
        raise NotFoundError("run", new_id)
    if RunIn.model_validate(row.spec) != run:
        raise ConflictError(
            "run_conflict", f"Run '{run.key}' of campaign {run.campaign_id} exists with other content; use another key."
        )
    return run_of(row), is_new


async def get_run(session: AsyncSession, run_id: UUID) -> Run:
    """One run. Raises: NotFoundError."""
    row = await repository.run_by_id(session, run_id)
    if row is None:
        raise NotFoundError("run", run_id)
    return run_of(row)


async def list_runs(
    session: AsyncSession, campaign_id: UUID | None, state: RunState | None, limit: int
) -> tuple[Run, ...]:
    """Runs, oldest first."""
    return tuple(run_of(row) for row in await repository.list_runs(session, campaign_id, state, limit))


async def list_metrics(session: AsyncSession, run_id: UUID, after: int, limit: int) -> tuple[RunMetric, ...]:
    """Logged points after a step. Raises: NotFoundError."""
    await get_run(session, run_id)
    rows = await repository.list_metrics(session, run_id, after, limit)
    return tuple(RunMetric(step=row.step, values=row.logged, at=row.at) for row in rows)


async def cancel_run(session: AsyncSession, run_id: UUID) -> tuple[Run, bool]:
    """End a run; returns it and whether this call ended it. Cancelling again is harmless.

    Raises: NotFoundError; ConflictError `run_over` when it already succeeded or failed.
    """
    ended = await repository.cancel(session, run_id)
    run = await get_run(session, run_id)
    if not ended and run.state is not RunState.CANCELLED:
        raise ConflictError("run_over", f"Run {run_id} is over ({run.state}); there is nothing to cancel.")
    return run, ended


async def pause_run(session: AsyncSession, run_id: UUID) -> Run:
    """Pause a run: at once when it waits, after its step and a checkpoint when it runs. Pausing again is harmless.

    Raises: NotFoundError; ConflictError `run_over`.
    """
    await repository.pause(session, run_id)
    return _require_open(await get_run(session, run_id), "pause")


async def resume_run(session: AsyncSession, run_id: UUID) -> Run:
    """Let a paused run go on from its checkpoint. Resuming one that is not paused is harmless.

    Raises: NotFoundError; ConflictError `run_over`.
    """
    await repository.resume(session, run_id)
    return _require_open(await get_run(session, run_id), "resume")


def _require_open(run: Run, act: str) -> Run:
    if run.finished_at is not None:
        raise ConflictError("run_over", f"Run {run.id} is over ({run.state}); there is nothing to {act}.")
    return run
