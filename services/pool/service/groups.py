"""Groups come in: stored with pass rates, routing, flags and counters in one transaction.

Invariant: an assignment has at most one group; an unscored response is in no pass rate; a group of a repeated or late
hand-in changes nothing twice.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool import identity
from services.pool.hints import Hints
from services.pool.models import QuestionRow
from services.pool.repository import assignments, campaigns, counters, groups, questions
from services.pool.repository.groups import Claimed, NewGroup, NewResponse, NewTokens
from services.pool.repository.questions import Move
from services.pool.router import Answered, PassRate, after_group, level_of
from services.pool.service.faults import fault
from services.pool.service.orders import complete_finished
from services.pool.service.retention import Retention
from services.pool.service.unreadable import as_far_as_readable
from shared.contracts.orders import GroupBatchResult, GroupReceipt, GroupStatus, OrderPurpose
from shared.contracts.recipe import RouterRecipe
from shared.contracts.verdicts import ScoredSegment, UnscoredReason, VerdictOutcome
from shared.db import Database
from shared.errors import NotFoundError
from shared.packed import PackedGroup, PackedGroupIn, PackedResponse, joined

# Postgres text cannot hold NUL; one character for one, so that offsets stay right.
NUL_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_SEGMENTS = TypeAdapter(tuple[ScoredSegment, ...])


@dataclass(slots=True)
class _Accepted:
    """A group that will be stored, with what it belongs to."""

    group: PackedGroupIn
    assignment: Claimed
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
            purpose=OrderPurpose(self.assignment.purpose),
            policy_version=self.assignment.policy_version,
            scored=self.scored,
            correct=self.correct,
            reference_unparseable=UnscoredReason.REFERENCE_UNPARSEABLE in reasons,
        )


class Groups:
    """Taking and reading groups."""

    def __init__(self, database: Database, hints: Hints, retention: Retention) -> None:
        self._database = database
        self._hints = hints
        self._retention = retention

    async def store(self, chunks: AsyncIterator[Sequence[PackedGroupIn]]) -> GroupBatchResult:
        """Store what is missing, chunk by chunk in one transaction; one receipt a group says what became of it.

        What `chunks` raises undoes it all. The transaction begins when the second chunk is there, or the end of the only one: a
        sender of one chunk, however slow, holds no connection.
        """
        await self._retention.make_today()
        chunk, following = await anext(chunks, None), await anext(chunks, None)
        receipts: list[GroupReceipt] = []
        taken: dict[UUID, Claimed] = {}
        async with self._database.transaction() as session:
            while chunk is not None:
                receipts += await self._store(session, chunk, taken)
                chunk, following = following, None if following is None else await anext(chunks, None)
        finite = {assignment.order_id for assignment in taken.values() if not assignment.is_standing}
        if finite:
            await complete_finished(self._database, self._hints, sorted(finite))
        return GroupBatchResult(receipts=tuple(receipts))

    async def _store(
        self, session: AsyncSession, chunk: Sequence[PackedGroupIn], taken: dict[UUID, Claimed]
    ) -> list[GroupReceipt]:
        """The receipts of one chunk; its assignments are put into `taken`, which has those of earlier chunks."""
        found = await groups.lock_assignments(session, [group.assignment_id for group in chunk])
        accepted: dict[UUID, _Accepted] = {}
        receipts = [_judge(group, found, taken, accepted) for group in chunk]
        await _write(session, list(accepted.values()))
        taken |= {assignment_id: item.assignment for assignment_id, item in accepted.items()}
        return receipts

    async def get(self, group_id: UUID) -> PackedGroup:
        """One group. Raises: NotFoundError."""
        async with self._database.transaction() as session:
            found = await groups.load(session, [group_id])
        if not found:
            raise NotFoundError("group", group_id)
        return found[0]


def _judge(
    group: PackedGroupIn, found: dict[UUID, Claimed], taken: dict[UUID, Claimed], accepted: dict[UUID, _Accepted]
) -> GroupReceipt:
    """The receipt of one group; what will be stored is put into `accepted`."""
    assignment = found.get(group.assignment_id)
    if assignment is None:
        return _refuse(group, "there is no such assignment")
    group_id = identity.group_id(assignment.id)
    if assignment.state == "done" or assignment.id in taken or assignment.id in accepted:
        return GroupReceipt(assignment_id=assignment.id, status=GroupStatus.DUPLICATE, group_id=group_id)
    if (reason := fault(group, assignment)) is not None:
        return _refuse(group, reason)
    group = _as_far_as_readable(group)
    late = assignment.is_over or assignment.state != "leased" or assignment.lease_token != group.lease_token
    outcomes = Counter(response.verdict.outcome for response in group.responses)
    accepted[assignment.id] = _Accepted(group, assignment, late, outcomes)
    status = GroupStatus.LATE if late else GroupStatus.STORED
    return GroupReceipt(assignment_id=assignment.id, status=status, group_id=group_id)


def _as_far_as_readable(group: PackedGroupIn) -> PackedGroupIn:
    verdicts = as_far_as_readable([response.verdict for response in group.responses])
    pairs = zip(group.responses, verdicts, strict=True)
    responses = tuple(
        response if response.verdict is verdict else replace(response, judgement=verdict) for response, verdict in pairs
    )
    return replace(group, responses=responses)


def _refuse(group: PackedGroupIn, why: str) -> GroupReceipt:
    message = f"The group of assignment {group.assignment_id} is refused: {why}."
    return GroupReceipt(assignment_id=group.assignment_id, status=GroupStatus.REFUSED, message=message)


async def _write(session: AsyncSession, accepted: Sequence[_Accepted]) -> None:
    if not accepted:
        return
    deltas = counters.Deltas()
    question_ids = sorted({item.assignment.question_id for item in accepted})
    locked = await questions.lock(session, question_ids)
    group_rows = [_group_row(item) for item in accepted]
    response_rows = [row for item in accepted for row in _response_rows(item)]
    await groups.insert_all(session, group_rows, response_rows, [_token_row(item) for item in accepted])
    await assignments.finish(session, [item.assignment.id for item in accepted])
    for item, row in zip(accepted, group_rows, strict=True):
        _count(item, row, deltas)
    by_campaign: dict[UUID, list[_Accepted]] = defaultdict(list)
    for item in accepted:
        by_campaign[item.assignment.campaign_id].append(item)
    routers = await campaigns.routers(session, list(by_campaign))
    for campaign_id, items in sorted(by_campaign.items()):
        await _measure(session, items, routers[campaign_id])
        await questions.move(session, campaign_id, _moves(items, locked, routers[campaign_id]), deltas)
    await deltas.write(session)


async def _measure(session: AsyncSession, items: Sequence[_Accepted], router: RouterRecipe) -> None:
    """Add the scored responses to the pass rates by question, policy and order."""
    order_ids, question_ids = (
        {item.assignment.order_id for item in items},
        {item.assignment.question_id for item in items},
    )
    measured = await questions.pass_rates(session, sorted(order_ids), sorted(question_ids))
    versions: dict[tuple[UUID, UUID, UUID], int] = {}
    for item in items:
        if item.scored and item.assignment.purpose != OrderPurpose.VERIFY:
            key = (item.assignment.question_id, item.assignment.policy_id, item.assignment.order_id)
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
            reason = "reference-unparseable" if not after.usable else str(item.assignment.purpose)
            moves[question_id] = Move(question_id, original, after, reason, item.assignment.order_id)
        else:
            moves.pop(question_id, None)
    return list(moves.values())


def _count(item: _Accepted, row: NewGroup, deltas: counters.Deltas) -> None:
    campaign_id, order_id = item.assignment.campaign_id, item.assignment.order_id
    if item.assignment.state == "dead":
        deltas.add(order_id, "dead", -1)
        deltas.add(order_id, f"dead:{item.assignment.reason}", -1)
    if item.assignment.state == "withdrawn":
        deltas.add(order_id, "total")
    deltas.add(order_id, "done")
    deltas.add(order_id, "late", int(item.late))
    deltas.add(order_id, "tokens", row.tokens)
    deltas.add(campaign_id, "groups")
    deltas.add(campaign_id, "responses", len(item.group.responses))
    if row.drop_reason is not None:
        deltas.add(order_id, f"dropped:{row.drop_reason}")
    for response in item.group.responses:
        if response.verdict.unscored_reason is not None:
            deltas.add(order_id, f"unscored:{response.verdict.unscored_reason}")


def _group_row(item: _Accepted) -> NewGroup:
    if item.assignment.is_standing and not item.scored:
        consumption, drop_reason = "dropped", "all-unscored"
    else:
        consumption, drop_reason = ("waiting" if item.assignment.is_standing else "none"), None
    return NewGroup(
        id=identity.group_id(item.assignment.id),
        assignment_id=item.assignment.id,
        order_id=item.assignment.order_id,
        question_id=item.assignment.question_id,
        policy_id=item.assignment.policy_id,
        policy_version=item.assignment.policy_version,
        scored=item.scored,
        correct=item.correct,
        unscored=len(item.group.responses) - item.scored,
        tokens=sum(response.tokens for response in item.group.responses),
        late=item.late,
        consumption=consumption,
        drop_reason=drop_reason,
        created_at=item.assignment.now,
    )


def _response_rows(item: _Accepted) -> list[NewResponse]:
    group_id = identity.group_id(item.assignment.id)
    return [_response_row(group_id, position, response) for position, response in enumerate(item.group.responses)]


def _response_row(group_id: UUID, position: int, response: PackedResponse) -> NewResponse:
    verdict = response.verdict
    segments = verdict.segments
    if any("\0" in (segment.answer or "") for segment in segments):
        segments = tuple(segment.model_copy(update={"answer": _storable(segment.answer)}) for segment in segments)
    return NewResponse(
        group_id=group_id,
        position=position,
        text=_text(response.text),
        finish_reason=response.finish_reason,
        tokens=response.tokens,
        outcome=verdict.outcome,
        unscored_reason=verdict.unscored_reason,
        answer=_storable(verdict.answer),
        segments=_SEGMENTS.dump_json(segments).decode(),
        unparsed=_storable(verdict.unparsed),
        verifier=_text(verdict.verifier),
        milliseconds=verdict.milliseconds,
    )


def _token_row(item: _Accepted) -> NewTokens:
    responses = item.group.responses
    return NewTokens(
        group_id=identity.group_id(item.assignment.id),
        created_at=item.assignment.now,
        prompt_token_ids=item.group.prompt_token_ids,
        token_ids=joined([response.token_ids for response in responses]),
        logprobs=joined([response.logprobs for response in responses]),
        token_ends=joined([response.token_ends for response in responses]),
    )


def _text(text: str) -> str:
    return text.replace("\0", NUL_REPLACEMENT)


def _storable(text: str | None) -> str | None:
    return None if text is None else _text(text)
