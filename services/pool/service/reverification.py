"""Re-verification: stored responses are judged again; what a newer verifier says otherwise moves pass rates and pools.

Invariants: an assignment's verdicts count once; every verdict is kept; an unscored one replaces none, so that it never
changes a pass rate. A question that is quarantined or retracted moves no more. What was trained on stays as it is.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool import identity
from services.pool.hints import Hints
from services.pool.models import AssignmentRow, GroupRow, OrderRow, QuestionRow
from services.pool.repository import assignments, campaigns, counters, difficulty, orders, questions, reverification
from services.pool.repository.questions import Move
from services.pool.router import Answered, PassRate, Standing, after_group, level_of
from services.pool.service.orders import complete_finished
from shared.contracts.orders import GroupBatchResult, GroupReceipt, GroupStatus, OrderPurpose
from shared.contracts.questions import QuestionKind, Split
from shared.contracts.recipe import RouterRecipe
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
from shared.contracts.verdicts import Verdict, VerdictOutcome
from shared.db import Database
from shared.errors import ConflictError, HeadwaterError, NotFoundError

Judged = Row[*tuple[Any, ...]]


@dataclass(slots=True)
class _Item:
    """New verdicts that will be stored, with what they belong to."""

    new: NewVerdicts
    assignment: AssignmentRow
    order: OrderRow
    group: GroupRow
    source: OrderRow
    before: Sequence[Judged]
    late: bool

    def replacing(self) -> list[tuple[int, Judged, Verdict]]:
        """(position, what counted, what counts now): the scored ones."""
        pairs = zip(self.before, self.new.verdicts, strict=True)
        return [
            (old.position, old, verdict) for old, verdict in pairs if verdict.outcome is not VerdictOutcome.UNSCORED
        ]

    def outcomes(self) -> Counter[VerdictOutcome]:
        """The outcomes of the group's responses from now on."""
        replaced = {position: verdict.outcome for position, _, verdict in self.replacing()}
        return Counter(replaced.get(old.position, VerdictOutcome(old.outcome)) for old in self.before)


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
            if source.purpose == OrderPurpose.REVERIFY:
                sentence = f"Order {source.key!r} has no responses of its own; re-verify the order that sampled them."
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
                accepted: dict[UUID, _Item] = {}
                for index, new in list(waiting.items()):
                    group_id = found.links.get(new.assignment_id)
                    if group_id in accepted:
                        continue  # two re-verifications of a group: the second sees what the first one changed
                    del waiting[index]
                    receipts[index], item = found.judge(new)
                    if item is not None:
                        accepted[item.group.id] = item
                if accepted:
                    await _write(session, list(accepted.values()), found.questions)
            finished |= {item.order.id for item in accepted.values()}
        if finished:
            await complete_finished(self._database, self._hints, sorted(finished))
        return GroupBatchResult(receipts=tuple(receipts[index] for index in sorted(receipts)))

    async def flips(self, order_id: UUID, after: int, limit: int) -> Flips:
        """What a re-verification says otherwise, so far. Raises: NotFoundError, HeadwaterError `not_a_reverification`."""
        async with self._database.transaction() as session:
            order = await orders.get(session, order_id)
            if order is None:
                raise NotFoundError("order", order_id)
            if order.purpose != OrderPurpose.REVERIFY:
                sentence = f"Order {order.key!r} is for {order.purpose}; only a re-verification has flips."
                raise HeadwaterError("not_a_reverification", sentence, 422)
            counts = await reverification.flip_counts(session, order_id)
            rows = await reverification.flips(session, order_id, after, limit)
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
            next=str(after + limit) if len(rows) == limit else None,
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """What a batch of new verdicts belongs to, locked."""

    assignments: Mapping[UUID, tuple[AssignmentRow, OrderRow, bool]]
    links: Mapping[UUID, UUID]
    questions: Mapping[UUID, QuestionRow]
    groups: Mapping[UUID, tuple[GroupRow, OrderRow]]
    before: Mapping[UUID, Sequence[Judged]]

    def judge(self, new: NewVerdicts) -> tuple[GroupReceipt, _Item | None]:
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
        item = _Item(new, assignment, order, group, source, before, late)
        return _receipt(new, GroupStatus.LATE if late else GroupStatus.STORED, group.id), item


async def _found(session: AsyncSession, ids: Sequence[UUID]) -> _Found:
    found = await assignments.lock_for_groups(session, ids)
    links = await reverification.groups_of(session, ids)
    locked = await questions.lock(session, sorted({row.question_id for row, _, _ in found.values()}))
    groups = await reverification.lock_groups(session, sorted(set(links.values())))
    return _Found(found, links, locked, groups, await reverification.judged(session, list(groups)))


def _receipt(new: NewVerdicts, status: GroupStatus, group_id: UUID) -> GroupReceipt:
    return GroupReceipt(assignment_id=new.assignment_id, status=status, group_id=group_id)


def _refuse(new: NewVerdicts, why: str) -> GroupReceipt:
    message = f"The verdicts of assignment {new.assignment_id} are refused: {why}."
    return GroupReceipt(assignment_id=new.assignment_id, status=GroupStatus.REFUSED, message=message)


async def _write(session: AsyncSession, items: Sequence[_Item], locked: Mapping[UUID, QuestionRow]) -> None:
    deltas = counters.Deltas()
    await reverification.keep_first(session, [item.group.id for item in items])
    await reverification.add(session, [row for item in items for row in _history_rows(item)])
    await reverification.replace(
        session,
        [_verdict_row(item, position, verdict) for item in items for position, _, verdict in item.replacing()],
        [_counts_row(item) for item in items],
    )
    await assignments.finish(session, [item.assignment.id for item in items])
    for item in items:
        _count(item, deltas)
    routers = await campaigns.routers(session, sorted({item.order.campaign_id for item in items}))
    await _measure(session, items, routers)
    moves = await _moves(session, items, locked, routers, deltas)
    for campaign_id in routers:
        own = [move for move in moves if locked[move.question_id].campaign_id == campaign_id]
        await questions.move(session, campaign_id, own, deltas)
    await deltas.write(session)


def _verdict_row(item: _Item, position: int, verdict: Verdict) -> dict[str, Any]:
    values = verdict.model_dump(mode="json")
    return {"group_id": item.group.id, "position": position} | {name: values[name] for name in reverification.VERDICT}


def _history_rows(item: _Item) -> list[dict[str, Any]]:
    return [
        _verdict_row(item, old.position, verdict)
        | {"order_id": item.order.id, "before_outcome": old.outcome, "before_verifier": old.verifier}
        for old, verdict in zip(item.before, item.new.verdicts, strict=True)
    ]


def _counts_row(item: _Item) -> dict[str, Any]:
    outcomes = item.outcomes()
    correct, unscored = outcomes[VerdictOutcome.CORRECT], outcomes[VerdictOutcome.UNSCORED]
    return {"id": item.group.id, "scored": len(item.before) - unscored, "correct": correct, "unscored": unscored}


def _count(item: _Item, deltas: counters.Deltas) -> None:
    if item.assignment.state == "dead":
        deltas.add(item.order.id, "dead", -1)
        deltas.add(item.order.id, f"dead:{item.assignment.reason}", -1)
    if item.assignment.state == "withdrawn":
        deltas.add(item.order.id, "total")
    deltas.add(item.order.id, "done")
    deltas.add(item.order.id, "late", int(item.late))
    for _, old, _ in item.replacing():
        if old.unscored_reason is not None:
            deltas.add(item.source.id, f"unscored:{old.unscored_reason}", -1)


async def _measure(session: AsyncSession, items: Sequence[_Item], routers: dict[UUID, RouterRecipe]) -> None:
    """Correct the pass rates by question, policy and the order that sampled."""
    measured = await questions.pass_rates(
        session, sorted({item.source.id for item in items}), sorted({item.group.question_id for item in items})
    )
    rows: dict[tuple[UUID, UUID, UUID], dict[str, Any]] = {}
    for item in items:
        after = _counts_row(item)
        key = (item.group.question_id, item.group.policy_id, item.source.id)
        n, correct = measured.get(key, (0, 0))
        measured[key] = (n + after["scored"] - item.group.scored, correct + after["correct"] - item.group.correct)
        if not measured[key][0]:
            continue
        rate = PassRate(*measured[key])
        rows[key] = {
            **dict(zip(("question_id", "policy_id", "order_id"), key, strict=True)),
            "policy_version": item.group.policy_version,
            "n": rate.n,
            "correct": rate.correct,
            "mean": rate.mean,
            "variance": rate.variance,
            "level": level_of(rate, routers[item.order.campaign_id]),
        }
    await questions.put_pass_rates(session, [rows[key] for key in sorted(rows)])


async def _moves(
    session: AsyncSession,
    items: Sequence[_Item],
    locked: Mapping[UUID, QuestionRow],
    routers: dict[UUID, RouterRecipe],
    deltas: counters.Deltas,
) -> list[Move]:
    """Where the questions of these groups go: by the probe that decides, and out of or into the tiny pool."""
    ids = sorted({item.group.question_id for item in items})
    deciding, taught = await reverification.deciding_probes(session, ids), await reverification.taught(session, ids)
    moves: dict[UUID, Move] = {}
    for item in items:
        question_id, router = item.group.question_id, routers[item.order.campaign_id]
        original = questions.standing(locked[question_id])
        standing = moves[question_id].after if question_id in moves else original
        if item.group.id in deciding:
            _recount_earlier(item, standing, router, deltas)
            standing = after_group(standing, _answered(item), router)
        if item.source.purpose == OrderPurpose.TEACH and standing.usable and standing.split is Split.TRAIN:
            standing = replace(standing, tiny=question_id in taught)
        if standing != original:
            moves[question_id] = Move(question_id, original, standing, OrderPurpose.REVERIFY, item.order.id)
    return list(moves.values())


def _answered(item: _Item) -> Answered:
    after = _counts_row(item)
    return Answered(
        purpose=OrderPurpose.PROBE,
        policy_version=item.group.policy_version,
        scored=after["scored"],
        correct=after["correct"],
        reference_unparseable=False,
    )


def _recount_earlier(item: _Item, standing: Standing, router: RouterRecipe, deltas: counters.Deltas) -> None:
    """The probe of an earlier version moves no question, but counts by version and level."""
    version, after = item.group.policy_version, _counts_row(item)
    if standing.usable and (standing.probed_version is None or version >= standing.probed_version):
        return
    campaign_id = item.order.campaign_id
    for scored, correct, change in (
        (item.group.scored, item.group.correct, -1),
        (after["scored"], after["correct"], 1),
    ):
        if scored:
            level = level_of(PassRate(scored, correct), router)
            difficulty.recount(campaign_id, standing.split, version, level, change, deltas)
