"""Re-verification: stored responses are judged again; what a newer verifier says otherwise moves pass rates and pools.

Invariants: an assignment's verdicts count once; every verdict is kept; an unscored one replaces none, so that it never
changes a pass rate. A question that is quarantined or retracted moves no more. What was trained on stays as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.pool import identity
from services.pool.hints import Hints
from services.pool.models import AssignmentRow, GroupRow, OrderRow, QuestionRow, VerdictRow
from services.pool.repository import assignments, counters, orders, questions, reverification
from services.pool.service import cursors
from services.pool.service.cursors import VerdictPlace
from services.pool.service.orders import complete_finished
from services.pool.service.verdicts import Item, Judged, write
from shared.contracts.orders import GroupBatchResult, GroupReceipt, GroupStatus, OrderPurpose
from shared.contracts.questions import QuestionKind
from shared.contracts.reverification import (
    Flip,
    FlipCount,
    Flips,
    NewVerdicts,
    NewVerdictsBatch,
    ReverifyIn,
    StoredResponses,
    StoredResponsesRequest,
    StoredResponsesResult,
)
from shared.contracts.verdicts import VerdictOutcome
from shared.db import Database
from shared.errors import ConflictError, HeadwaterError, NotFoundError


class Reverifications:
    """Ordering, handing out and taking in of second judgements."""

    def __init__(self, database: Database, hints: Hints) -> None:
        self._database = database
        self._hints = hints

    async def create(self, source_id: UUID, request: ReverifyIn) -> tuple[UUID, bool]:
        """The id of the order that judges the responses of `source_id` again, and whether it is new.

        Raises: NotFoundError, ConflictError (the key has another order), HeadwaterError `reverifies_nothing`.
        """
        async with self._database.transaction() as session:
            source = await orders.get(session, source_id)
            if source is None:
                raise NotFoundError("order", source_id)
            if source.purpose in (OrderPurpose.REVERIFY, OrderPurpose.VERIFY):
                sentence = f"Order {source.key!r} has no answers of its own; re-verify the order that sampled them."
                raise HeadwaterError("reverifies_nothing", sentence, 422)
            order_id = identity.order_id(source.campaign_id, request.key)
            content = f"{source_id}:{identity.request_hash(request)}"
            created = await reverification.insert_order(session, order_id, request.key, content, source)
            row = await orders.get(session, order_id)
            assert row is not None
            if row.request_hash != content:
                raise ConflictError(
                    "order_exists", f"Order {request.key!r} exists with other content; write it under another key."
                )
            if created:
                deltas = counters.Deltas()
                made = await reverification.add_assignments(session, order_id, source_id, request.verifiers)
                deltas.add(order_id, "total", made)
                await deltas.write(session)
        if created:
            await complete_finished(self._database, self._hints, [order_id])
            self._hints.drain()
        return order_id, created

    async def responses(self, request: StoredResponsesRequest) -> StoredResponsesResult:
        """The stored texts that these assignments judge."""
        async with self._database.transaction() as session:
            groups = await reverification.groups_of(session, request.assignments)
            texts = await reverification.texts(session, sorted(set(groups.values())))
        known = [assignment_id for assignment_id in request.assignments if assignment_id in groups]
        return StoredResponsesResult(
            items=tuple(StoredResponses(assignment_id=one, texts=tuple(texts[groups[one]])) for one in known)
        )

    async def store(self, batch: NewVerdictsBatch) -> GroupBatchResult:
        """Take new verdicts; one receipt an assignment says what became of them."""
        receipts: dict[int, GroupReceipt] = {}
        waiting = dict(enumerate(batch.items))
        finished: set[UUID] = set()
        while waiting:
            async with self._database.transaction() as session:
                found = await _found(session, [new.assignment_id for new in waiting.values()])
                accepted: dict[UUID, Item] = {}
                for index, new in list(waiting.items()):
                    group_id = found.links.get(new.assignment_id)
                    if group_id in accepted:
                        continue  # two re-verifications of a group: the second sees what the first one changed
                    del waiting[index]
                    receipts[index], item = found.judge(new)
                    if item is not None:
                        accepted[item.group.id] = item
                if accepted:
                    await write(session, list(accepted.values()), found.questions)
            finished |= {item.order.id for item in accepted.values()}
        if finished:
            await complete_finished(self._database, self._hints, sorted(finished))
        return GroupBatchResult(receipts=tuple(receipts[index] for index in sorted(receipts)))

    async def flips(self, order_id: UUID, after: str | None, limit: int) -> Flips:
        """What a re-verification says otherwise, so far.

        Raises: NotFoundError, HeadwaterError `not_a_reverification`, or of a cursor.
        """
        owner = order_id.hex
        place = cursors.decode(after, owner, VerdictPlace)
        async with self._database.transaction() as session:
            order = await orders.get(session, order_id)
            if order is None:
                raise NotFoundError("order", order_id)
            if order.purpose != OrderPurpose.REVERIFY:
                sentence = f"Order {order.key!r} is for {order.purpose}; only a re-verification has flips."
                raise HeadwaterError("not_a_reverification", sentence, 422)
            counts = await reverification.flip_counts(session, order_id)
            rows = await reverification.flips(session, order_id, place, limit)
        return Flips(
            order_id=order_id,
            counts=tuple(
                FlipCount(
                    kind=QuestionKind(row.kind),
                    from_outcome=VerdictOutcome(row.before_outcome),
                    to_outcome=VerdictOutcome(row.outcome),
                    n=row.n,
                )
                for row in counts
            ),
            items=tuple(
                Flip(
                    group_id=verdict.group_id,
                    position=verdict.position,
                    question_id=question_id,
                    from_outcome=VerdictOutcome(verdict.before_outcome),
                    from_verifier=verdict.before_verifier,
                    to_outcome=VerdictOutcome(verdict.outcome),
                    to_verifier=verdict.verifier,
                )
                for verdict, question_id in rows
            ),
            next=cursors.encode(owner, _place(rows[-1][0])) if len(rows) == limit else None,
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """What a batch of new verdicts belongs to, locked."""

    assignments: Mapping[UUID, tuple[AssignmentRow, OrderRow, bool]]
    links: Mapping[UUID, UUID]
    questions: Mapping[UUID, QuestionRow]
    groups: Mapping[UUID, tuple[GroupRow, OrderRow]]
    before: Mapping[UUID, Sequence[Judged]]

    def judge(self, new: NewVerdicts) -> tuple[GroupReceipt, Item | None]:
        """The receipt of an assignment's verdicts, and what will be stored of them."""
        if new.assignment_id not in self.assignments or new.assignment_id not in self.links:
            return _refuse(new, "it judges no stored group"), None
        assignment, order, over = self.assignments[new.assignment_id]
        group, source = self.groups[self.links[assignment.id]]
        before = self.before[group.id]
        if len(new.verdicts) != len(before):
            return _refuse(new, f"its group has {len(before)} responses, not {len(new.verdicts)}"), None
        if assignment.state == "done":
            return _receipt(new, GroupStatus.DUPLICATE, group.id), None
        late = over or assignment.state != "leased" or assignment.lease_token != new.lease_token
        item = Item(new, assignment, order, group, source, before, late)
        return _receipt(new, GroupStatus.LATE if late else GroupStatus.STORED, group.id), item


async def _found(session: AsyncSession, ids: Sequence[UUID]) -> _Found:
    found = await assignments.lock_for_groups(session, ids)
    links = await reverification.groups_of(session, ids)
    locked = await questions.lock(session, sorted({row.question_id for row, _, _ in found.values()}))
    groups = await reverification.lock_groups(session, sorted(set(links.values())))
    return _Found(found, links, locked, groups, await reverification.judged(session, list(groups)))


def _place(verdict: VerdictRow) -> VerdictPlace:
    return VerdictPlace(verdict.group_id, verdict.position)


def _receipt(new: NewVerdicts, status: GroupStatus, group_id: UUID) -> GroupReceipt:
    return GroupReceipt(assignment_id=new.assignment_id, status=status, group_id=group_id)


def _refuse(new: NewVerdicts, why: str) -> GroupReceipt:
    message = f"The verdicts of assignment {new.assignment_id} are refused: {why}."
    return GroupReceipt(assignment_id=new.assignment_id, status=GroupStatus.REFUSED, message=message)
