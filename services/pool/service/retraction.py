"""Retraction: a question is left out of every order, snapshot and batch from now on, and what used it is listed.

Invariant: idempotent; the first reason stays. Groups that wait for a trainer are dropped at once; a batch that is leased
already may still be acknowledged, and is listed; assignments that are open die when they would be claimed.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.hints import Hints
from services.pool.models import QuestionRow
from services.pool.repository import campaigns, counters, lineage, questions, retraction
from services.pool.repository.questions import Move
from shared.contracts.lineage import RetractedUses, RetractedUsesList, RetractionStatus, RetractManyIn
from shared.contracts.questions import QuestionState
from shared.db import Database
from shared.errors import NotFoundError


class Retractions:
    """Retracting questions."""

    def __init__(self, database: Database, hints: Hints) -> None:
        self._database = database
        self._hints = hints

    async def retract(self, request: RetractManyIn) -> RetractedUsesList:
        """Retract the named questions, all in one transaction. Raises: NotFoundError (campaign)."""
        async with self._database.transaction() as session:
            wanted, more = await self._wanted(session, request)
            rows = await questions.lock(session, sorted(set(wanted)))
            fresh = [row for row in rows.values() if row.state != QuestionState.RETRACTED]
            before = {row.id: QuestionState(row.state) for row in fresh}
            dropped = await self._retract(session, fresh, request.reason)
            snapshots = await lineage.snapshots(session, list(rows))
            runs = await lineage.runs(session, list(rows))
        items = []
        for question_id in wanted:
            if question_id not in rows:
                items.append(RetractedUses(question_id=question_id, status=RetractionStatus.NOT_FOUND))
                continue
            is_fresh = question_id in before
            items.append(
                RetractedUses(
                    question_id=question_id,
                    status=RetractionStatus.RETRACTED if is_fresh else RetractionStatus.ALREADY,
                    campaign_id=rows[question_id].campaign_id,
                    from_state=before.pop(question_id, None),
                    dropped_groups=dropped.get(question_id, 0) if is_fresh else 0,
                    snapshots=tuple(snapshot.id for snapshot in snapshots[question_id]),
                    runs=tuple(runs[question_id]),
                )
            )
        if fresh:
            self._hints.drain()
        return RetractedUsesList(items=tuple(items), more=more)

    async def _wanted(self, session: AsyncSession, request: RetractManyIn) -> tuple[Sequence[UUID], bool]:
        if request.campaign is not None and not await campaigns.exists(session, request.campaign):
            raise NotFoundError("campaign", request.campaign)
        if request.source is None or request.campaign is None:
            return request.ids, False
        found = await retraction.of_source(session, request.campaign, request.source, request.limit + 1)
        return found[: request.limit], len(found) > request.limit

    async def _retract(self, session: AsyncSession, rows: Sequence[QuestionRow], reason: str) -> dict[UUID, int]:
        """Move locked questions out, with an event each; returns how many waiting groups of each were dropped."""
        deltas = counters.Deltas()
        by_campaign: dict[UUID, list[Move]] = {}
        for row in rows:
            before = questions.standing(row)
            move = Move(row.id, before, before.retracted(), reason, None)
            by_campaign.setdefault(row.campaign_id, []).append(move)
        dropped = await retraction.drop_waiting(session, [row.id for row in rows], retraction.DROP_REASON)
        for order_id in (order_id for order_ids in dropped.values() for order_id in order_ids):
            deltas.add(order_id, f"dropped:{retraction.DROP_REASON}")
        for campaign_id, moves in sorted(by_campaign.items()):
            await questions.move(session, campaign_id, moves, deltas)
        await deltas.write(session)
        return {question_id: len(order_ids) for question_id, order_ids in dropped.items()}
