"""Orders: written by the cascade, carried out by sampling workers."""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool import identity
from services.pool.hints import Hints
from services.pool.metrics import ScoredResponse, trajectory_metrics
from services.pool.models import OrderRow
from services.pool.repository import campaigns, counters, groups, orders, selections
from shared.contracts.generation import SamplingParameters
from shared.contracts.metrics import OrderMetrics
from shared.contracts.orders import (
    Order,
    OrderIn,
    OrderPolicy,
    OrderPurpose,
    OrderState,
    QuestionSelection,
)
from shared.contracts.questions import Split
from shared.contracts.verdicts import ScoredSegment, VerdictOutcome
from shared.contracts.weights import QuestionWeights
from shared.db import Database
from shared.errors import ConflictError, HeadwaterError, NotFoundError

TRAINING_PURPOSES = (OrderPurpose.TEACH, OrderPurpose.ROLLOUT)


class Orders:
    """Making, reading and ending orders."""

    def __init__(self, database: Database, hints: Hints) -> None:
        self._database = database
        self._hints = hints

    async def create(self, request: OrderIn) -> tuple[Order, bool]:
        """The order, and whether it is new.

        Raises: NotFoundError (campaign), ConflictError (the key has another order), HeadwaterError `eval_never_trains`,
        `eval_comes_whole`, `standing_is_rollout`, `reverifies_an_order`, `verifies_an_order`, `weights_are_standing`,
        `on_demand_is_standing`.
        """
        _refuse_nonsense(request)
        order_id, content = identity.order_id(request.campaign_id, request.key), _content(request)
        async with self._database.transaction() as session:
            if not await campaigns.exists(session, request.campaign_id):
                raise NotFoundError("campaign", request.campaign_id)
            created = await orders.insert_new(session, order_id, content, request)
            row = await orders.get(session, order_id)
            assert row is not None
            if row.request_hash != content:
                raise ConflictError(
                    "order_exists", f"Order {request.key!r} exists with other content; write it under another key."
                )
            if created and row.watermark_groups is None:
                deltas = counters.Deltas()
                deltas.add(order_id, "total", await selections.add_assignments(session, row))
                await deltas.write(session)
        if created:
            await complete_finished(self._database, self._hints, [order_id])
            self._hints.drain()
        return await self.get(order_id), created

    async def get(self, order_id: UUID) -> Order:
        """One order with its progress. Raises: NotFoundError."""
        async with self._database.autocommit() as session:
            row = await orders.get(session, order_id)
            if row is None:
                raise NotFoundError("order", order_id)
            return (await contracts(session, [row]))[0]

    async def set_policy(self, order_id: UUID, policy: OrderPolicy) -> Order:
        """What is not claimed yet is sampled with this policy; an older version never replaces a newer one.

        Raises: NotFoundError, ConflictError (a finite order keeps its policy, an older version).
        """
        async with self._database.transaction() as session:
            row = await orders.lock(session, order_id)
            if row is None:
                raise NotFoundError("order", order_id)
            if row.watermark_groups is None:
                raise ConflictError("order_is_finite", f"Order {row.key!r} is finite and keeps its policy.")
            if policy.policy_version < row.policy_version:
                raise ConflictError(
                    "older_policy",
                    f"Order {row.key!r} samples version {row.policy_version} and does not go back to {policy.policy_version}.",
                )
            await orders.set_policy(session, order_id, policy)
        self._hints.drain()
        return await self.get(order_id)

    async def close(self, order_id: UUID) -> Order:
        """The order makes no more assignments, and those that are not done are withdrawn. Closing twice is harmless."""
        async with self._database.transaction() as session:
            row = await orders.lock(session, order_id)
            if row is None:
                raise NotFoundError("order", order_id)
            if row.state == OrderState.OPEN:
                deltas = counters.Deltas()
                deltas.add(order_id, "total", -await orders.close(session, order_id))
                await deltas.write(session)
        return await self.get(order_id)

    async def metrics(self, order_id: UUID) -> OrderMetrics:
        """The metrics of everything that was answered so far, over all questions and by their level."""
        async with self._database.transaction() as session:
            if await orders.get(session, order_id) is None:
                raise NotFoundError("order", order_id)
            responses = [row async for row in groups.scored(session, order_id)]
        return await asyncio.to_thread(_metrics, order_id, responses)


def _refuse_nonsense(request: OrderIn) -> None:
    """Raises: HeadwaterError of the first thing that the order asks for and cannot mean."""
    split, standing, purpose = request.selection.split, request.watermark_groups is not None, request.purpose
    refusals = (
        (
            "eval_never_trains",
            split is not Split.TRAIN and purpose in TRAINING_PURPOSES,
            f"would use eval questions for {purpose}; select split 'train'.",
        ),
        (
            "eval_comes_whole",
            split is Split.EVAL and request.selection.fraction < 1,
            "asks for a fraction of the eval questions, which come whole; leave 'fraction' out, or say how many with 'limit'.",
        ),
        (
            "standing_is_rollout",
            standing and purpose is not OrderPurpose.ROLLOUT,
            "has 'watermark_groups', which only an order for rollout has; leave it out.",
        ),
        (
            "reverifies_an_order",
            purpose is OrderPurpose.REVERIFY,
            "would re-verify nothing; POST /v1/orders/ID/reverify names whose responses.",
        ),
        (
            "verifies_an_order",
            purpose is OrderPurpose.VERIFY,
            "would verify nothing; POST /v1/orders/ID/verify names whose answers.",
        ),
        (
            "weights_are_standing",
            not standing and request.weights != QuestionWeights(),
            "takes each of its questions once, so 'weights' say nothing; leave them out, or give it 'watermark_groups'.",
        ),
        (
            "on_demand_is_standing",
            not standing and request.on_demand,
            "has all its assignments at once, so 'on_demand' says nothing; leave it out, or give it 'watermark_groups'.",
        ),
    )
    for code, applies, sentence in refusals:
        if applies:
            raise HeadwaterError(code, f"Order {request.key!r} {sentence}", 422)


def _content(request: OrderIn) -> str:
    """What the order asks for; a field at its default says nothing, so that it is the same to a writer who does not know it."""
    unsaid: dict[str, Any] = {
        name: True
        for name in ("weights", "on_demand", "priority")
        if getattr(request, name) == OrderIn.model_fields[name].default
    }
    if not request.sampling.stop:
        unsaid["sampling"] = {"stop"}
    if request.selection.reprobe is None:
        unsaid["selection"] = {"reprobe"}
    return hashlib.sha256(request.model_dump_json(exclude=unsaid).encode()).hexdigest()


def _metrics(order_id: UUID, rows: Sequence[Row[Any]]) -> OrderMetrics:
    by_level: dict[int | None, list[ScoredResponse]] = {}
    for row in rows:
        segments = tuple(ScoredSegment.model_validate(segment) for segment in row.segments)
        response = ScoredResponse(VerdictOutcome(row.outcome), segments, row.unparsed, row.tokens)
        by_level.setdefault(row.level, []).append(response)
    levels = {level: by_level[level] for level in sorted(level for level in by_level if level is not None)}
    return OrderMetrics(
        order_id=order_id,
        overall=trajectory_metrics([response for responses in by_level.values() for response in responses]),
        by_level={level: trajectory_metrics(responses) for level, responses in levels.items()},
        tokens_sampled=sum(row.tokens for row in rows),
    )


async def complete_finished(database: Database, hints: Hints, order_ids: Sequence[UUID] | None = None) -> None:
    """Mark orders complete that have nothing left, and tell the cascade. Call it after the commit of what finished them."""
    async with database.transaction() as session:
        finished = await orders.complete_finished(session, order_ids)
    for _, campaign_id in finished:
        hints.advance(campaign_id)


async def contracts(session: AsyncSession, rows: Sequence[OrderRow]) -> list[Order]:
    """The wire form of orders, with their progress."""
    progress = await counters.of_scopes(session, [row.id for row in rows])
    return [_contract(row, progress[row.id]) for row in rows]


def _contract(row: OrderRow, progress: dict[str, int]) -> Order:
    return Order(
        id=row.id,
        campaign_id=row.campaign_id,
        key=row.key,
        purpose=OrderPurpose(row.purpose),
        policy_id=row.policy_id,
        policy_version=row.policy_version,
        k=row.k,
        sampling=SamplingParameters.model_validate(row.sampling),
        selection=QuestionSelection.model_validate(row.selection),
        watermark_groups=row.watermark_groups,
        weights=QuestionWeights.model_validate(row.weights),
        on_demand=row.on_demand,
        priority=row.priority,
        max_attempts=row.max_attempts,
        deadline_s=row.deadline_s,
        state=OrderState(row.state),
        total=progress.get("total", 0),
        done=progress.get("done", 0),
        dead=progress.get("dead", 0),
        created_at=row.created_at,
    )
