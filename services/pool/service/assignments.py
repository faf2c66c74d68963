"""Assignments: leased to sampling workers, given back, given up. Invariant: one holder at a time, fenced by a token."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.hints import Hints
from services.pool.models import OrderRow
from services.pool.repository import assignments, counters, orders, questions
from services.pool.repository.assignments import Work
from services.pool.router import UNUSABLE_STATES
from services.pool.service.orders import complete_finished
from shared.contracts.generation import SamplingParameters
from shared.contracts.orders import (
    Assignment,
    AssignmentFailure,
    ClaimRequest,
    ClaimResult,
    LeaseExtension,
    LeaseRef,
    OrderPurpose,
    OrderState,
)
from shared.db import Database
from shared.errors import ConflictError, NotFoundError

FIRST_RETRY_S = 2.0
LAST_RETRY_S = 60.0
MAX_BLAMELESS_FAILURES = 50
log = logging.getLogger(__name__)


def retry_after_s(attempts: int) -> float:
    """The pause after the attempt of this number (from 1): doubled each time, up to a minute."""
    return min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(attempts - 1, 16))


class Assignments:
    """Claims, heartbeats and failures."""

    def __init__(self, database: Database, hints: Hints) -> None:
        self._database = database
        self._hints = hints
        self._warned_orders: set[UUID] = set()

    async def claim(self, request: ClaimRequest) -> ClaimResult:
        """Lease up to `limit` assignments. Standing orders are topped up first; hopeless assignments die on the way."""
        chosen: list[Assignment] = []
        buried: set[UUID] = set()
        async with self._database.transaction() as session:
            deltas = counters.Deltas()
            await self._top_up(session, deltas)
            while len(chosen) < request.limit:
                found = await assignments.lock_available(session, request.limit - len(chosen))
                reasons = {work.assignment.id: reason for work in found if (reason := _hopeless(work)) is not None}
                usable = [work for work in found if work.assignment.id not in reasons]
                tokens = {work.assignment.id: uuid4() for work in usable}
                await assignments.lease(session, tokens, request.worker, request.lease_s)
                await assignments.bury(session, reasons)
                for work in found:
                    if work.assignment.id in reasons:
                        deltas.add(work.order.id, "dead")
                        deltas.add(work.order.id, f"dead:{reasons[work.assignment.id]}")
                        buried.add(work.order.id)
                chosen.extend(_granted(work, tokens[work.assignment.id], request.lease_s) for work in usable)
                if not reasons:
                    break
            await deltas.write(session)
            open_orders = await orders.count_open(session)
        if buried:
            await complete_finished(self._database, self._hints, sorted(buried))
        return ClaimResult(assignments=tuple(chosen), open_orders=open_orders)

    async def _top_up(self, session: AsyncSession, deltas: counters.Deltas) -> None:
        """New assignments of standing orders that are below their watermark."""
        for order in await orders.open_standing(session):
            assert order.watermark_groups is not None
            if await orders.in_flight(session, order.id) >= order.watermark_groups:
                continue
            await orders.lock_top_up(session, order.id)
            fresh = await orders.lock(session, order.id)
            assert fresh is not None
            assert fresh.watermark_groups is not None
            missing = fresh.watermark_groups - await orders.in_flight(session, order.id)
            if fresh.state == OrderState.OPEN and missing > 0:
                made = await orders.top_up(session, fresh, missing)
                deltas.add(order.id, "total", made)
                self._warn_if_empty(fresh, made)

    def _warn_if_empty(self, order: OrderRow, made: int) -> None:
        if made:
            self._warned_orders.discard(order.id)
        elif order.id not in self._warned_orders:
            self._warned_orders.add(order.id)
            log.warning(
                "order %s (%s) makes no assignments: no question matches %s", order.id, order.key, order.selection
            )

    async def extend(self, request: LeaseExtension) -> list[LeaseRef]:
        """The leases that are still held, extended."""
        pairs = [(lease.assignment_id, lease.lease_token) for lease in request.leases]
        if not pairs:
            return []
        async with self._database.transaction() as session:
            held = await assignments.extend(session, pairs, request.lease_s)
        return [LeaseRef(assignment_id=assignment_id, lease_token=token) for assignment_id, token in held]

    async def fail(self, request: AssignmentFailure) -> Literal["open", "dead"]:
        """Give a lease back with its reason; returns the assignment's state, `open` or `dead`.

        Raises: NotFoundError, ConflictError `lease_lost` (somebody else has it, or it is over).
        """
        async with self._database.transaction() as session:
            row = await assignments.lock_one(session, request.assignment_id)
            if row is None:
                raise NotFoundError("assignment", request.assignment_id)
            if row.state != "leased" or row.lease_token != request.lease_token:
                raise ConflictError("lease_lost", f"Assignment {row.id} is not leased under this token any more.")
            order = await orders.get(session, row.order_id)
            assert order is not None
            blameless = row.blameless_failures + (not request.counts_as_attempt)
            attempts = row.attempts - (not request.counts_as_attempt)
            dead = attempts >= order.max_attempts or blameless >= MAX_BLAMELESS_FAILURES
            await assignments.give_back(
                session,
                row.id,
                request.reason,
                request.message,
                attempts=attempts,
                blameless_failures=blameless,
                after_s=retry_after_s(attempts + blameless),
            )
            deltas = counters.Deltas()
            deltas.add(order.id, f"failed:{request.reason}")
            if dead:
                await assignments.bury(session, {row.id: request.reason})
                deltas.add(order.id, "dead")
                deltas.add(order.id, f"dead:{request.reason}")
            await deltas.write(session)
        if dead:
            await complete_finished(self._database, self._hints, [order.id])
        return "dead" if dead else "open"


def _hopeless(work: Work) -> str | None:
    """Why an assignment is given up instead of leased once more."""
    if work.question.state in UNUSABLE_STATES:
        return f"question-{work.question.state}"
    if work.assignment.attempts >= work.order.max_attempts:
        return "lease-expired" if work.assignment.state == "leased" else work.assignment.reason or "too-many-attempts"
    return None


def _granted(work: Work, token: UUID, lease_s: float) -> Assignment:
    order, assignment = work.order, work.assignment
    return Assignment.model_construct(
        id=assignment.id,
        order_id=order.id,
        purpose=OrderPurpose(order.purpose),
        policy_id=assignment.policy_id,
        policy_version=assignment.policy_version,
        k=order.k,
        sampling=SamplingParameters.model_validate(order.sampling),
        deadline_s=order.deadline_s,
        question=questions.to_contract(work.question),
        lease_token=token,
        lease_expires_at=datetime.now(UTC) + timedelta(seconds=lease_s),
        attempt=assignment.attempts + 1,
    )
