"""Lineage: what was sampled for a question and what took it to train on; and the questions that runs were trained on."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Row, Select, func, select, union
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import (
    BatchGroupRow,
    BatchRow,
    GroupRow,
    OrderRow,
    QuestionRow,
    ResponseRow,
    SnapshotQuestionRow,
    SnapshotRow,
)
from shared.contracts.lineage import BatchUse, ResponseVerdict, RunSteps, RunUse
from shared.contracts.verdicts import UnscoredReason, VerdictOutcome

GroupFacts = Row[int, UUID, UUID, str, UUID, int, str, str | None, datetime]


async def groups(session: AsyncSession, question_id: UUID, after: int, limit: int) -> Sequence[GroupFacts]:
    """Groups of a question behind the sequence `after`, in the order they were stored, without their texts."""
    statement = (
        select(
            GroupRow.sequence,
            GroupRow.id,
            GroupRow.order_id,
            OrderRow.purpose,
            GroupRow.policy_id,
            GroupRow.policy_version,
            GroupRow.consumption,
            GroupRow.drop_reason,
            GroupRow.created_at,
        )
        .join(OrderRow, OrderRow.id == GroupRow.order_id)
        .where(GroupRow.question_id == question_id, GroupRow.sequence > after)
        .order_by(GroupRow.sequence)
        .limit(limit)
    )
    return (await session.execute(statement)).all()


async def verdicts(session: AsyncSession, group_ids: Sequence[UUID]) -> Mapping[UUID, list[ResponseVerdict]]:
    """The verdicts that count, by group and in the order of the responses."""
    statement = (
        select(
            ResponseRow.group_id,
            ResponseRow.position,
            ResponseRow.outcome,
            ResponseRow.unscored_reason,
            ResponseRow.answer,
            ResponseRow.verifier,
        )
        .where(ResponseRow.group_id.in_(group_ids))
        .order_by(ResponseRow.group_id, ResponseRow.position)
    )
    found: dict[UUID, list[ResponseVerdict]] = {group_id: [] for group_id in group_ids}
    for row in await session.execute(statement):
        found[row.group_id].append(
            ResponseVerdict(
                position=row.position,
                outcome=VerdictOutcome(row.outcome),
                unscored_reason=UnscoredReason(row.unscored_reason) if row.unscored_reason else None,
                answer=row.answer,
                verifier=row.verifier,
            )
        )
    return found


async def batches(session: AsyncSession, group_ids: Sequence[UUID]) -> Mapping[UUID, BatchUse]:
    """The batch that each group is in, where it is in one."""
    statement = (
        select(BatchGroupRow.group_id, BatchGroupRow.staleness, BatchRow)
        .join(BatchRow, BatchRow.id == BatchGroupRow.batch_id)
        .where(BatchGroupRow.group_id.in_(group_ids))
    )
    return {
        group_id: BatchUse(
            batch_id=batch.id,
            run_id=batch.run_id,
            step=batch.step,
            state="acknowledged" if batch.state == "acknowledged" else "leased",
            staleness=staleness,
            acknowledged_at=batch.acknowledged_at,
        )
        for group_id, staleness, batch in (await session.execute(statement)).tuples()
    }


async def runs(session: AsyncSession, question_ids: Sequence[UUID]) -> Mapping[UUID, list[RunUse]]:
    """The runs whose batches hold groups of these questions, by question."""
    statement = (
        select(
            GroupRow.question_id,
            BatchRow.run_id,
            func.min(BatchRow.step).label("first_step"),
            func.count(BatchRow.id.distinct()).label("batches"),
            func.count(BatchRow.id.distinct()).filter(BatchRow.state == "acknowledged").label("acknowledged"),
        )
        .join(BatchGroupRow, BatchGroupRow.group_id == GroupRow.id)
        .join(BatchRow, BatchRow.id == BatchGroupRow.batch_id)
        .where(GroupRow.question_id.in_(question_ids))
        .group_by(GroupRow.question_id, BatchRow.run_id)
        .order_by(GroupRow.question_id, BatchRow.run_id)
    )
    found: dict[UUID, list[RunUse]] = {question_id: [] for question_id in question_ids}
    for row in await session.execute(statement):
        use = RunUse(run_id=row.run_id, first_step=row.first_step, batches=row.batches, acknowledged=row.acknowledged)
        found[row.question_id].append(use)
    return found


async def snapshots(session: AsyncSession, question_ids: Sequence[UUID]) -> Mapping[UUID, list[SnapshotRow]]:
    """The snapshots that have rows of these questions, by question and oldest first."""
    statement = (
        select(SnapshotQuestionRow.question_id, SnapshotRow)
        .join(SnapshotRow, SnapshotRow.id == SnapshotQuestionRow.snapshot_id)
        .where(SnapshotQuestionRow.question_id.in_(question_ids))
        .order_by(SnapshotRow.created_at, SnapshotRow.id)
    )
    found: dict[UUID, list[SnapshotRow]] = {question_id: [] for question_id in question_ids}
    for question_id, snapshot in (await session.execute(statement)).tuples():
        found[question_id].append(snapshot)
    return found


async def trained_on(
    session: AsyncSession, snapshot_ids: Sequence[UUID], runs_steps: Sequence[RunSteps], after: UUID | None, limit: int
) -> Sequence[Row[UUID, str]]:
    """(id, state) of the questions of these snapshots and batches, each once, by id behind `after`."""
    parts: list[Select[UUID]] = [_of_run(steps) for steps in runs_steps]
    if snapshot_ids:
        parts.append(select(SnapshotQuestionRow.question_id).where(SnapshotQuestionRow.snapshot_id.in_(snapshot_ids)))
    if not parts:
        return []
    statement = select(QuestionRow.id, QuestionRow.state).where(QuestionRow.id.in_(union(*parts)))
    if after is not None:
        statement = statement.where(QuestionRow.id > after)
    return (await session.execute(statement.order_by(QuestionRow.id).limit(limit))).all()


def _of_run(steps: RunSteps) -> Select[UUID]:
    statement = (
        select(GroupRow.question_id)
        .join(BatchGroupRow, BatchGroupRow.group_id == GroupRow.id)
        .join(BatchRow, BatchRow.id == BatchGroupRow.batch_id)
        .where(BatchRow.run_id == steps.run_id)
    )
    return statement if steps.before_step is None else statement.where(BatchRow.step < steps.before_step)
