"""Assignments: claims under `FOR UPDATE SKIP LOCKED`, leases and their end."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import AssignmentRow, OrderRow, QuestionRow


@dataclass(frozen=True, slots=True)
class Work:
    """An assignment with its order and its question."""

    assignment: AssignmentRow
    order: OrderRow
    question: QuestionRow


async def lock_available(session: AsyncSession, limit: int) -> Sequence[Work]:
    """Assignments that can be claimed now: open ones, and leased ones whose lease is over. Oldest first, locked."""
    statement = (
        select(AssignmentRow, OrderRow, QuestionRow)
        .join(OrderRow, OrderRow.id == AssignmentRow.order_id)
        .join(QuestionRow, QuestionRow.id == AssignmentRow.question_id)
        .where(AssignmentRow.available_at <= func.now())
        .order_by(AssignmentRow.available_at, AssignmentRow.sequence)
        .limit(limit)
        .with_for_update(of=AssignmentRow, skip_locked=True)
        .execution_options(populate_existing=True)
    )
    return [Work(*row) for row in (await session.execute(statement)).tuples()]


async def lock_for_groups(
    session: AsyncSession, ids: Sequence[UUID]
) -> dict[UUID, tuple[AssignmentRow, OrderRow, bool]]:
    """Assignments by id with their order and whether their lease is over, locked in the order of their ids."""
    statement = (
        select(AssignmentRow, OrderRow, func.coalesce(AssignmentRow.available_at <= func.now(), True))
        .join(OrderRow, OrderRow.id == AssignmentRow.order_id)
        .where(AssignmentRow.id.in_(ids))
        .order_by(AssignmentRow.id)
        .with_for_update(of=AssignmentRow)
    )
    return {row[0].id: (row[0], row[1], row[2]) for row in (await session.execute(statement)).tuples()}


async def lock_one(session: AsyncSession, assignment_id: UUID) -> AssignmentRow | None:
    """One assignment, locked."""
    return await session.get(AssignmentRow, assignment_id, with_for_update=True)


async def lease(session: AsyncSession, tokens: dict[UUID, UUID], worker: str, lease_s: float) -> None:
    """Lease locked assignments under these tokens; each lease is an attempt."""
    await _update_each(
        session,
        {
            "state": "leased",
            "lease_token": bindparam("b_token"),
            "available_at": func.now() + timedelta(seconds=lease_s),
            "attempts": AssignmentRow.__table__.c.attempts + 1,
            "worker": worker,
            "claimed_at": func.now(),
        },
        [{"b_id": assignment_id, "b_token": token} for assignment_id, token in tokens.items()],
    )


async def bury(session: AsyncSession, reasons: dict[UUID, str]) -> None:
    """Assignments that are given up, each with its last reason."""
    await _update_each(
        session,
        {"state": "dead", "available_at": None, "reason": bindparam("b_reason"), "finished_at": func.now()},
        [{"b_id": assignment_id, "b_reason": reason} for assignment_id, reason in reasons.items()],
    )


async def finish(session: AsyncSession, ids: Sequence[UUID]) -> None:
    """Assignments whose group is stored."""
    await session.execute(
        update(AssignmentRow)
        .where(AssignmentRow.id.in_(ids))
        .values(state="done", available_at=None, finished_at=func.now())
        .execution_options(synchronize_session=False)
    )


async def give_back(
    session: AsyncSession,
    assignment_id: UUID,
    reason: str,
    message: str,
    *,
    attempts: int,
    blameless_failures: int,
    after_s: float,
) -> None:
    """An open assignment again, to be claimed after a pause."""
    await session.execute(
        update(AssignmentRow)
        .where(AssignmentRow.id == assignment_id)
        .values(
            state="open",
            lease_token=None,
            attempts=attempts,
            blameless_failures=blameless_failures,
            available_at=func.now() + timedelta(seconds=after_s),
            reason=reason,
            message=message,
        )
    )


async def extend(
    session: AsyncSession, leases: Sequence[tuple[UUID, UUID]], lease_s: float
) -> Sequence[tuple[UUID, UUID]]:
    """Extend the leases that are still held under their token, locked in the order of their ids; returns those."""
    locked = (
        select(AssignmentRow.id, AssignmentRow.lease_token)
        .where(tuple_(AssignmentRow.id, AssignmentRow.lease_token).in_(leases), AssignmentRow.state == "leased")
        .order_by(AssignmentRow.id)
        .with_for_update()
    )
    held = {(row.id, row.lease_token) for row in await session.execute(locked)}
    await session.execute(
        update(AssignmentRow)
        .where(AssignmentRow.id.in_([assignment_id for assignment_id, _ in held]))
        .values(available_at=func.now() + timedelta(seconds=lease_s))
        .execution_options(synchronize_session=False)
    )
    return [lease for lease in leases if lease in held]


async def _update_each(session: AsyncSession, values: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    table: Any = AssignmentRow.__table__
    connection = await session.connection()
    await connection.execute(update(table).where(table.c.id == bindparam("b_id")).values(**values), list(rows))
