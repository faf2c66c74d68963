"""HTTP in: runs."""

from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from services.training import service
from services.training.admission import admit
from shared.bus import ADVANCE_TASK, EXECUTE_TASK, hint
from shared.contracts.runs import Run, RunIn, RunList, RunMetric, RunState

router = APIRouter(prefix="/v1/runs", tags=["runs"])


@router.post("", status_code=201, responses={200: {"model": Run}})
async def create_run(run: RunIn, request: Request, response: Response) -> Run:
    """Store a run (201), or return the one with this key (200), and wake a training worker.

    A new one is refused (422, 409) when the policy, snapshot or order that it names is not there or does not fit.
    """
    async with request.app.state.database.transaction() as session:
        is_known = await service.is_stored(session, run)
    if not is_known:
        await admit(request.app.state.peers, run)
    async with request.app.state.database.transaction() as session:
        stored, is_new = await service.create_run(session, run)
    if stored.state is RunState.QUEUED:
        hint(request.app.state.celery, EXECUTE_TASK, str(stored.id))
    if not is_new:
        response.status_code = 200
    return stored


@router.get("")
async def list_runs(
    request: Request,
    campaign: UUID | None = None,
    state: RunState | None = None,
    limit: int = Query(default=100, ge=1, le=1000),
) -> RunList:
    """Runs of a campaign or of all, by state."""
    async with request.app.state.database.transaction() as session:
        return RunList(items=await service.list_runs(session, campaign, state, limit))


@router.get("/{run_id}")
async def get_run(run_id: UUID, request: Request) -> Run:
    """One run."""
    async with request.app.state.database.transaction() as session:
        return await service.get_run(session, run_id)


@router.get("/{run_id}/metrics")
async def list_run_metrics(
    run_id: UUID,
    request: Request,
    after: int = Query(default=-1, ge=-1),
    limit: int = Query(default=10_000, ge=1, le=10_000),
) -> tuple[RunMetric, ...]:
    """The logged points of a run in the order of their steps."""
    async with request.app.state.database.transaction() as session:
        return await service.list_metrics(session, run_id, after, limit)


@router.post("/{run_id}/cancel")
async def cancel_run(run_id: UUID, request: Request) -> Run:
    """End a run; its trainer notices within a heartbeat."""
    async with request.app.state.database.transaction() as session:
        run, ended = await service.cancel_run(session, run_id)
    if ended:
        hint(request.app.state.celery, ADVANCE_TASK, str(run.campaign_id))
    return run


@router.post("/{run_id}/pause")
async def pause_run(run_id: UUID, request: Request) -> Run:
    """Pause a run: its trainer ends the step, writes a checkpoint and lets go (`pausing`, then `paused`). Again is harmless."""
    async with request.app.state.database.transaction() as session:
        return await service.pause_run(session, run_id)


@router.post("/{run_id}/resume")
async def resume_run(run_id: UUID, request: Request) -> Run:
    """Put a paused run back into the queue; it goes on from its checkpoint. Again is harmless."""
    async with request.app.state.database.transaction() as session:
        run = await service.resume_run(session, run_id)
    if run.state is RunState.QUEUED:
        hint(request.app.state.celery, EXECUTE_TASK, str(run.id))
    return run
