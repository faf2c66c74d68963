"""Assignments: leased to sampling workers, given back, given up. Invariant: one holder at a time, fenced by a token."""

from typing import Literal

from services.pool.hints import Hints
from services.pool.repository import assignments, counters, orders
from services.pool.repository.assignments import Claimed
from services.pool.service.orders import complete_finished
from services.pool.service.rollouts import Rollouts
from shared.contracts.orders import AssignmentFailure, ClaimRequest, LeaseExtension, LeaseRef
from shared.db import Database
from shared.errors import ConflictError, NotFoundError

FIRST_RETRY_S = 2.0
LAST_RETRY_S = 60.0
MAX_BLAMELESS_FAILURES = 50


def retry_after_s(attempts: int) -> float:
    """The pause after the attempt of this number (from 1): doubled each time, up to a minute."""
    return min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(attempts - 1, 16))


class Assignments:
    """Claims, heartbeats and failures."""

    def __init__(self, database: Database, hints: Hints, rollouts: Rollouts) -> None:
        self._database = database
        self._hints = hints
        self._rollouts = rollouts

    async def claim(self, request: ClaimRequest) -> bytes:
        """Lease up to `limit` assignments; the JSON of a `ClaimResult`. Hopeless assignments die on the way.

        Standing orders are topped up first where that is due, and otherwise when there is too little to claim.
        """
        is_due = self._rollouts.is_due
        if is_due:
            await self._rollouts.top_up()
        claims = await self._lease(request, request.limit)
        missing = request.limit - sum(claim.leased for claim in claims)
        if missing and not is_due and await self._rollouts.top_up():
            claims += await self._lease(request, missing)
        leased = ",".join(claim.assignments for claim in claims if claim.leased)
        return f'{{"assignments":[{leased}],"open_orders":{claims[-1].open_orders}}}'.encode()

    async def _lease(self, request: ClaimRequest, missing: int) -> list[Claimed]:
        """What was found, until it is enough or nothing died on the way."""
        claims: list[Claimed] = []
        async with self._database.autocommit() as session:
            while missing and (not claims or claims[-1].buried):
                claims.append(await assignments.claim(session, missing, request.worker, request.lease_s))
                missing -= claims[-1].leased
        if buried := {order_id for claim in claims for order_id in claim.buried}:
            await complete_finished(self._database, self._hints, sorted(buried))
        return claims

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
                await assignments.bury(session, row.id, request.reason)
                deltas.add(order.id, "dead")
                deltas.add(order.id, f"dead:{request.reason}")
            await deltas.write(session)
        if dead:
            await complete_finished(self._database, self._hints, [order.id])
        return "dead" if dead else "open"
