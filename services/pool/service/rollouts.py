"""Standing orders are kept at their watermark: when a claim comes up short, and every second besides; one that is `on_demand`, when a
trainer asks for a batch that is not there.

Limits: while claims are served from what is there, a standing order may be below its watermark for as long as `CHECK_EVERY_S`,
or twenty times what a check takes where that is longer.
"""

import logging
import time
from collections.abc import Callable
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import OrderRow
from services.pool.repository import counters, orders, rollouts
from shared.contracts.orders import OrderState
from shared.db import Database

CHECK_EVERY_S = 1.0
CHECK_SHARE = 0.05
DRAWS_AT_ONCE = 16
LOW_QUEUE = 1024
log = logging.getLogger(__name__)


class Rollouts:
    """Makes the assignments of standing orders."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._next_check = 0.0
        self._warned_orders: set[UUID] = set()
        self._large_orders: set[UUID] = set()

    @property
    def is_due(self) -> bool:
        """Whether it is time to look again."""
        return self._clock() >= self._next_check

    async def top_up(self) -> int:
        """New assignments of standing orders that are below their watermark; returns how many."""
        started = self._clock()
        self._next_check = started + CHECK_EVERY_S
        async with self._database.transaction() as session:
            below = await rollouts.missing(session)
        self._next_check = max(self._next_check, started + (self._clock() - started) / CHECK_SHARE)
        return sum([await self.top_up_order(order_id) for order_id in below])

    async def top_up_order(self, order_id: UUID) -> int:
        """New assignments of one order, where it is below its watermark; returns how many.

        Whoever comes second finds nothing missing. A few draws at a time: the next claim goes on.
        """
        made = 0
        async with self._database.transaction() as session:
            await rollouts.lock(session, order_id)
            missing = (await rollouts.missing(session, order_id)).get(order_id, 0)
            order = await orders.lock(session, order_id)
            if order is None or order.state != OrderState.OPEN or not missing:
                return 0
            for _ in range(DRAWS_AT_ONCE):
                taken, useful = await rollouts.take(session, order, missing - made)
                made += useful
                if made >= missing or (not taken and not await self._draw(session, order)):
                    break
            deltas = counters.Deltas()
            deltas.add(order_id, "total", made)
            await deltas.write(session)
        self._warn_if_empty(order, made)
        return made

    async def draw_ahead(self) -> None:
        """Draw where the queue of an order over many questions runs low, so that no claim waits for it."""
        for order_id in sorted(self._large_orders):
            async with self._database.transaction() as session:
                await rollouts.lock(session, order_id)
                order = await orders.lock(session, order_id)
                if order is None or order.state != OrderState.OPEN:
                    self._large_orders.discard(order_id)
                elif await rollouts.queued(session, order_id) < LOW_QUEUE:
                    await self._draw(session, order)

    async def _draw(self, session: AsyncSession, order: OrderRow) -> int:
        drawn = await rollouts.draw(session, order)
        if drawn > LOW_QUEUE:
            self._large_orders.add(order.id)
        return drawn

    def _warn_if_empty(self, order: OrderRow, made: int) -> None:
        if made:
            self._warned_orders.discard(order.id)
        elif order.id not in self._warned_orders:
            self._warned_orders.add(order.id)
            log.warning(
                "order %s (%s) makes no assignments: no question matches %s with a weight above 0 by %s",
                *(order.id, order.key, order.selection, order.weights),
            )
