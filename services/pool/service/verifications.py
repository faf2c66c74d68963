"""Verifications of stored answers: ordered, handed out with the truth about each answer, and counted. They come in as groups."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from services.pool import identity
from services.pool.hints import Hints
from services.pool.repository import counters, orders, verifications
from services.pool.service.orders import complete_finished
from shared.contracts.orders import OrderPurpose
from shared.contracts.recipe import VerificationStyle
from shared.contracts.verdicts import ScoredSegment, SegmentKind
from shared.contracts.verifications import (
    MAX_ANSWERS,
    AnswersRequest,
    AnswersResult,
    AssignmentAnswers,
    JudgedAnswer,
    VerifyIn,
    Yield,
    Yields,
)
from shared.db import Database
from shared.errors import ConflictError, HeadwaterError, NotFoundError

WITHOUT_ANSWERS = (OrderPurpose.REVERIFY, OrderPurpose.VERIFY)
_SEGMENTS = TypeAdapter(tuple[ScoredSegment, ...])


class Verifications:
    """Ordering, handing out and counting."""

    def __init__(self, database: Database, hints: Hints) -> None:
        self._database = database
        self._hints = hints

    async def create(self, source_id: UUID, request: VerifyIn) -> tuple[UUID, bool]:
        """The id of the order that verifies the answers of `source_id`, and whether it is new.

        Raises: NotFoundError, ConflictError (the key has another order), HeadwaterError `verifies_nothing`.
        """
        async with self._database.transaction() as session:
            source = await orders.get(session, source_id)
            if source is None:
                raise NotFoundError("order", source_id)
            if source.purpose in WITHOUT_ANSWERS:
                sentence = (
                    f"Order {source.key!r} has no answers of its own; verify those of the order that sampled them."
                )
                raise HeadwaterError("verifies_nothing", sentence, 422)
            order_id = identity.order_id(source.campaign_id, request.key)
            content = f"{source_id}:{identity.request_hash(request)}"
            created = await verifications.insert_order(session, order_id, content, request, source)
            row = await orders.get(session, order_id)
            assert row is not None
            if row.request_hash != content:
                raise ConflictError(
                    "order_exists", f"Order {request.key!r} exists with other content; write it under another key."
                )
            if created:
                deltas = counters.Deltas()
                made = await verifications.add_assignments(session, order_id, source_id, request)
                deltas.add(order_id, "total", made)
                await deltas.write(session)
        if created:
            await complete_finished(self._database, self._hints, [order_id])
            self._hints.drain()
        return order_id, created

    async def answers(self, request: AnswersRequest) -> AnswersResult:
        """What these assignments verify."""
        async with self._database.transaction() as session:
            sources = await verifications.sources(session, request.assignments)
            responses = await verifications.segments(session, sorted({source.group_id for source in sources.values()}))
        return AnswersResult(
            items=tuple(
                AssignmentAnswers(
                    assignment_id=assignment_id,
                    style=VerificationStyle(sources[assignment_id].style),
                    answers=tuple(_distinct(responses[sources[assignment_id].group_id]))[:MAX_ANSWERS],
                )
                for assignment_id in request.assignments
                if assignment_id in sources
            )
        )

    async def yields(self, order_id: UUID) -> Yields:
        """What came of the order so far. Raises: NotFoundError; HeadwaterError `not_verifications`."""
        async with self._database.transaction() as session:
            order = await orders.get(session, order_id)
            if order is None:
                raise NotFoundError("order", order_id)
            if order.purpose != OrderPurpose.VERIFY:
                sentence = f"Order {order.key!r} is for {order.purpose}; only an order for verifications has yields."
                raise HeadwaterError("not_verifications", sentence, 422)
            rows = await verifications.yields(session, order_id)
        return Yields(
            order_id=order_id,
            items=tuple(Yield(prompt=row.verifier, outcome=row.outcome, n=row.n) for row in rows),
        )


def _distinct(responses: Iterable[Any]) -> Iterable[JudgedAnswer]:
    """Each answer of a first attempt once, in the order in which they come: what the builder of trajectories takes."""
    found: dict[str, JudgedAnswer] = {}
    for stored in responses:
        first = next(iter(_SEGMENTS.validate_python(stored)), None)
        if first is None or first.kind is not SegmentKind.SOLVE or first.answer is None or first.reward is None:
            continue
        found.setdefault(first.answer, JudgedAnswer(answer=first.answer, correct=first.reward > 0))
    return found.values()
