"""Groups come in: stored with pass rates, routing, flags and counters in one transaction.

Invariant: an assignment has at most one group; an unscored response is in no pass rate; a group of a repeated or late
hand-in changes nothing twice.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.pool import identity
from services.pool.hints import Hints
from services.pool.models import AssignmentRow, OrderRow, QuestionRow
from services.pool.repository import assignments, campaigns, counters, groups, questions
from services.pool.repository.questions import Move
from services.pool.router import Answered, PassRate, after_group, level_of
from services.pool.service.orders import complete_finished
from shared.contracts.orders import (
    Group,
    GroupBatch,
    GroupBatchResult,
    GroupIn,
    GroupReceipt,
    GroupStatus,
    OrderPurpose,
    ResponseIn,
)
from shared.contracts.recipe import RouterRecipe
from shared.contracts.verdicts import UnscoredReason, VerdictOutcome
from shared.db import Database
from shared.errors import NotFoundError

# Postgres text cannot hold NUL; one character for one, so that offsets stay right.
NUL_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(slots=True)
class _Accepted:
    """A group that will be stored, with what it belongs to."""

    group: GroupIn
    assignment: AssignmentRow
    order: OrderRow
    late: bool
    outcomes: Counter[VerdictOutcome]

    @property
    def scored(self) -> int:
        return self.outcomes[VerdictOutcome.CORRECT] + self.outcomes[VerdictOutcome.INCORRECT]

    @property
    def correct(self) -> int:
        return self.outcomes[VerdictOutcome.CORRECT]

    def answered(self) -> Answered:
        reasons = {response.verdict.unscored_reason for response in self.group.responses}
        return Answered(
            purpose=OrderPurpose(self.order.purpose),
            policy_version=self.assignment.policy_version,
            scored=self.scored,
            correct=self.correct,
            reference_unparseable=reasons == {UnscoredReason.REFERENCE_UNPARSEABLE},
        )


class Groups:
    """Taking and reading groups."""

    def __init__(self, database: Database, hints: Hints) -> None:
        self._database = database
        self._hints = hints

    async def store(self, batch: GroupBatch) -> GroupBatchResult:
        """Store what is missing; one receipt a group says what became of it."""
        async with self._database.transaction() as session:
            found = await assignments.lock_for_groups(session, [group.assignment_id for group in batch.groups])
            accepted: dict[UUID, _Accepted] = {}
            receipts = [self._judge(group, found, accepted) for group in batch.groups]
            await _write(session, list(accepted.values()))
        if accepted:
            finite = {item.order.id for item in accepted.values() if item.order.watermark_groups is None}
            await complete_finished(self._database, self._hints, sorted(finite))
        return GroupBatchResult(receipts=tuple(receipts))

    def _judge(
        self, group: GroupIn, found: dict[UUID, tuple[AssignmentRow, OrderRow, bool]], accepted: dict[UUID, _Accepted]
    ) -> GroupReceipt:
        """The receipt of one group; what will be stored is put into `accepted`."""
        group_id = identity.group_id(group.assignment_id)
        if group.assignment_id not in found:
            return _refuse(group, "there is no such assignment")
        assignment, order, over = found[group.assignment_id]
        if assignment.state == "done" or assignment.id in accepted:
            return GroupReceipt(assignment_id=assignment.id, status=GroupStatus.DUPLICATE, group_id=group_id)
        if (reason := _fault(group, assignment, order)) is not None:
            return _refuse(group, reason)
        late = over or assignment.state != "leased" or assignment.lease_token != group.lease_token
        outcomes = Counter(response.verdict.outcome for response in group.responses)
        accepted[assignment.id] = _Accepted(group, assignment, order, late, outcomes)
        status = GroupStatus.LATE if late else GroupStatus.STORED
        return GroupReceipt(assignment_id=assignment.id, status=status, group_id=group_id)

    async def get(self, group_id: UUID) -> Group:
        """One group. Raises: NotFoundError."""
        async with self._database.transaction() as session:
            found = await groups.load(session, [group_id])
        if not found:
            raise NotFoundError("group", group_id)
        return found[0]


def _fault(group: GroupIn, assignment: AssignmentRow, order: OrderRow) -> str | None:
    """Why a group cannot be the assignment's."""
    if group.policy_id != assignment.policy_id:
        return f"the assignment is for policy {assignment.policy_id}, not {group.policy_id}"
    if len(group.responses) > order.k:
        return f"the order asks for {order.k} responses, not {len(group.responses)}"
    for position, response in enumerate(group.responses):
        if not len(response.token_ids) == len(response.logprobs) == len(response.token_ends):
            return f"response {position} has token_ids, logprobs and token_ends of different lengths"
        ends = [segment.end for segment in response.verdict.segments]
        if ends and max(ends) > len(response.text):
            return f"response {position} has a segment behind the end of its text"
    return None


def _refuse(group: GroupIn, why: str) -> GroupReceipt:
    message = f"The group of assignment {group.assignment_id} is refused: {why}."
    return GroupReceipt(assignment_id=group.assignment_id, status=GroupStatus.REFUSED, message=message)


async def _write(session: AsyncSession, accepted: Sequence[_Accepted]) -> None:
    if not accepted:
        return
    deltas = counters.Deltas()
    question_ids = sorted({item.assignment.question_id for item in accepted})
    locked = await questions.lock(session, question_ids)
    group_rows = [_group_row(item) for item in accepted]
    await groups.insert_all(session, group_rows, [row for item in accepted for row in _response_rows(item)])
    await assignments.finish(session, [item.assignment.id for item in accepted])
    for item, row in zip(accepted, group_rows, strict=True):
        _count(item, row, deltas)
    by_campaign: dict[UUID, list[_Accepted]] = defaultdict(list)
    for item in accepted:
        by_campaign[item.order.campaign_id].append(item)
    routers = await campaigns.routers(session, list(by_campaign))
    for campaign_id, items in sorted(by_campaign.items()):
        await _measure(session, items, routers[campaign_id])
        await questions.move(session, campaign_id, _moves(items, locked, routers[campaign_id]), deltas)
    await deltas.write(session)


async def _measure(session: AsyncSession, items: Sequence[_Accepted], router: RouterRecipe) -> None:
    """Add the scored responses to the pass rates by question, policy and order."""
    order_ids, question_ids = {item.order.id for item in items}, {item.assignment.question_id for item in items}
    measured = await questions.pass_rates(session, sorted(order_ids), sorted(question_ids))
    versions: dict[tuple[UUID, UUID, UUID], int] = {}
    for item in items:
        if item.scored:
            key = (item.assignment.question_id, item.assignment.policy_id, item.order.id)
            n, correct = measured.get(key, (0, 0))
            measured[key] = (n + item.scored, correct + item.correct)
            versions[key] = item.assignment.policy_version
    rows: list[dict[str, Any]] = []
    for key in sorted(versions):
        rate = PassRate(*measured[key])
        rows.append(
            {
                **dict(zip(("question_id", "policy_id", "order_id"), key, strict=True)),
                "policy_version": versions[key],
                "n": rate.n,
                "correct": rate.correct,
                "mean": rate.mean,
                "variance": rate.variance,
                "level": level_of(rate, router),
            }
        )
    await questions.put_pass_rates(session, rows)


def _moves(items: Sequence[_Accepted], locked: dict[UUID, QuestionRow], router: RouterRecipe) -> list[Move]:
    """Where the questions of these groups go, one move a question."""
    moves: dict[UUID, Move] = {}
    for item in items:
        question_id = item.assignment.question_id
        earlier = moves.get(question_id)
        original = earlier.before if earlier else questions.standing(locked[question_id])
        after = after_group(earlier.after if earlier else original, item.answered(), router)
        if after != original:
            reason = "reference-unparseable" if not after.usable else str(item.order.purpose)
            moves[question_id] = Move(question_id, original, after, reason, item.order.id)
    return list(moves.values())


def _count(item: _Accepted, row: dict[str, Any], deltas: counters.Deltas) -> None:
    campaign_id, order_id = item.order.campaign_id, item.order.id
    if item.assignment.state == "dead":
        deltas.add(order_id, "dead", -1)
        deltas.add(order_id, f"dead:{item.assignment.reason}", -1)
    if item.assignment.state == "withdrawn":
        deltas.add(order_id, "total")
    deltas.add(order_id, "done")
    deltas.add(order_id, "late", int(item.late))
    deltas.add(order_id, "tokens", row["tokens"])
    deltas.add(campaign_id, "groups")
    deltas.add(campaign_id, "responses", len(item.group.responses))
    if row["drop_reason"] is not None:
        deltas.add(order_id, f"dropped:{row['drop_reason']}")
    for response in item.group.responses:
        if response.verdict.unscored_reason is not None:
            deltas.add(order_id, f"unscored:{response.verdict.unscored_reason}")


def _group_row(item: _Accepted) -> dict[str, Any]:
    standing_order = item.order.watermark_groups is not None
    if standing_order and not item.scored:
        consumption, drop_reason = "dropped", "all-unscored"
    else:
        consumption, drop_reason = ("waiting" if standing_order else "none"), None
    return {
        "id": identity.group_id(item.assignment.id),
        "assignment_id": item.assignment.id,
        "order_id": item.order.id,
        "question_id": item.assignment.question_id,
        "policy_id": item.assignment.policy_id,
        "policy_version": item.assignment.policy_version,
        "prompt_token_ids": groups.unpacked(item.group.prompt_token_ids),
        "scored": item.scored,
        "correct": item.correct,
        "unscored": item.outcomes[VerdictOutcome.UNSCORED],
        "tokens": sum(len(groups.unpacked(response.token_ids)) for response in item.group.responses)
        // groups.BYTES_PER_TOKEN,
        "late": item.late,
        "consumption": consumption,
        "drop_reason": drop_reason,
    }


def _response_rows(item: _Accepted) -> list[dict[str, Any]]:
    group_id = identity.group_id(item.assignment.id)
    return [_response_row(group_id, position, response) for position, response in enumerate(item.group.responses)]


def _response_row(group_id: UUID, position: int, response: ResponseIn) -> dict[str, Any]:
    verdict = response.verdict
    segments = [segment.model_dump(mode="json") for segment in verdict.segments]
    for segment in segments:
        segment["answer"] = _storable(segment["answer"])
    return {
        "group_id": group_id,
        "position": position,
        "text": _storable(response.text),
        "finish_reason": response.finish_reason,
        "token_ids": groups.unpacked(response.token_ids),
        "logprobs": groups.unpacked(response.logprobs),
        "token_ends": groups.unpacked(response.token_ends),
        "outcome": verdict.outcome,
        "unscored_reason": verdict.unscored_reason,
        "answer": _storable(verdict.answer),
        "segments": segments,
        "unparsed": verdict.unparsed,
        "verifier": verdict.verifier,
        "milliseconds": verdict.milliseconds,
    }


def _storable(text: str | None) -> str | None:
    return None if text is None else text.replace("\0", NUL_REPLACEMENT)
