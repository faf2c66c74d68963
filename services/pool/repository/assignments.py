"""Assignments: claims under `FOR UPDATE SKIP LOCKED`, leases and their end."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Interval, Text, bindparam, func, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import AssignmentRow, OrderRow
from services.pool.router import UNUSABLE_STATES

# Why an assignment is given up instead of leased once more, NULL while it is not. What is judged is as the statement found it:
# nothing that leaves an assignment available changes that.
_HOPELESS = """
    CASE WHEN q.state = ANY(:unusable) THEN 'question-' || q.state
         WHEN a.attempts < o.max_attempts THEN NULL
         WHEN a.state = 'leased' THEN 'lease-expired'
         ELSE coalesce(a.reason, 'too-many-attempts') END"""
# One statement, so it needs no transaction around it and no second round trip; Postgres writes the JSON of the answer as well.
# Each open order's priority is one range of the index, highest first, so that leases of a higher one that run are never walked.
# A limit out of sight and rows found by an array of ids: one plan is good for every limit, so Postgres plans once a connection.
_CLAIM = text(f"""
    WITH locked AS MATERIALIZED (
        SELECT found.id
        FROM (SELECT DISTINCT priority FROM pool.orders WHERE state = 'open' ORDER BY priority DESC) AS levels,
        LATERAL (
            SELECT id FROM pool.assignments
            WHERE priority = levels.priority AND available_at IS NOT NULL AND available_at <= now()
            ORDER BY available_at, sequence LIMIT (SELECT :limit) FOR UPDATE SKIP LOCKED
        ) AS found
        LIMIT (SELECT :limit)
    ), claimed AS (
        UPDATE pool.assignments a SET
            state = CASE WHEN {_HOPELESS} IS NULL THEN 'leased' ELSE 'dead' END,
            reason = coalesce({_HOPELESS}, a.reason),
            available_at = CASE WHEN {_HOPELESS} IS NULL THEN now() + :lease END,
            attempts = a.attempts + CASE WHEN {_HOPELESS} IS NULL THEN 1 ELSE 0 END,
            lease_token = CASE WHEN {_HOPELESS} IS NULL THEN gen_random_uuid() ELSE a.lease_token END,
            worker = CASE WHEN {_HOPELESS} IS NULL THEN :worker ELSE a.worker END,
            claimed_at = CASE WHEN {_HOPELESS} IS NULL THEN now() ELSE a.claimed_at END,
            finished_at = CASE WHEN {_HOPELESS} IS NULL THEN a.finished_at ELSE now() END
        FROM pool.orders o, pool.questions q
        WHERE a.id = ANY(ARRAY(SELECT id FROM locked)) AND o.id = a.order_id AND q.id = a.question_id
        RETURNING a.id, a.order_id, a.question_id, a.policy_id, a.policy_version, a.lease_token, a.available_at, a.attempts,
            a.priority, a.sequence, a.state, a.reason, o.purpose, o.k, o.sampling, o.deadline_s, q.campaign_id, q.text, q.answer,
            q.solution, q.kind, q.split, q.domain, q.source, q.state AS question_state, q.tiny, q.level, q.pass_rate
    ), counted AS (
        INSERT INTO pool.counters (scope, name, value)
        SELECT order_id, unnest(ARRAY['dead', 'dead:' || reason]), count(*) FROM claimed WHERE state = 'dead'
        GROUP BY order_id, reason
    )
    SELECT
        count(*) FILTER (WHERE state = 'leased') AS leased,
        array_agg(DISTINCT order_id) FILTER (WHERE state = 'dead') AS buried,
        (SELECT count(*) FROM pool.orders WHERE state = 'open') AS open_orders,
        string_agg(json_build_object(
            'id', id, 'order_id', order_id, 'purpose', purpose, 'policy_id', policy_id, 'policy_version', policy_version,
            'k', k, 'sampling', sampling, 'deadline_s', deadline_s, 'question', json_build_object(
                'id', question_id, 'campaign_id', campaign_id, 'text', text, 'answer', answer, 'solution', solution,
                'kind', kind, 'split', split, 'domain', domain, 'source', source, 'state', question_state, 'tiny', tiny,
                'level', level, 'pass_rate', pass_rate
            ), 'lease_token', lease_token, 'lease_expires_at', available_at, 'attempt', attempts
        )::text, ',' ORDER BY priority DESC, sequence) FILTER (WHERE state = 'leased') AS assignments
    FROM claimed
""").bindparams(  # noqa: S608 (a constant)
    bindparam("limit", type_=BigInteger),
    bindparam("lease", type_=Interval),
    bindparam("worker", type_=Text),
    bindparam("unusable", list(UNUSABLE_STATES), type_=ARRAY(Text)),
)


@dataclass(frozen=True, slots=True)
class Claimed:
    """What one claim did. `assignments`: the JSON of each leased one, by commas; `buried`: orders of those that died on the way."""

    leased: int
    buried: Sequence[UUID]
    open_orders: int
    assignments: str


async def claim(session: AsyncSession, limit: int, worker: str, lease_s: float) -> Claimed:
    """Lease up to `limit` assignments that can be claimed, or bury them where there is no hope; counters follow.

    Open ones and leased ones whose lease is over, by priority, then by how long they are available.
    """
    values = {"limit": limit, "worker": worker, "lease": timedelta(seconds=lease_s)}
    row = (await session.execute(_CLAIM, values)).one()
    return Claimed(row.leased, row.buried or (), row.open_orders, row.assignments or "")


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


async def bury(session: AsyncSession, assignment_id: UUID, reason: str) -> None:
    """An assignment that is given up, with its last reason."""
    await session.execute(
        update(AssignmentRow)
        .where(AssignmentRow.id == assignment_id)
        .values(state="dead", available_at=None, reason=reason, finished_at=func.now())
        .execution_options(synchronize_session=False)
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
