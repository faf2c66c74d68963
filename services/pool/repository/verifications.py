"""Orders for verifications: over the answers in stored groups, and what came of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, String, Uuid, cast, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import AssignmentRow, GroupRow, OrderRow, QuestionRow, ResponseRow, ReverificationRow
from services.pool.router import USABLE_STATES
from shared.contracts.orders import OrderPurpose
from shared.contracts.questions import Split
from shared.contracts.verdicts import VerdictOutcome
from shared.contracts.verifications import VerifyIn


class Source(NamedTuple):
    """What an assignment verifies: a group's answers, in a style."""

    group_id: UUID
    style: str


async def insert_order(
    session: AsyncSession, order_id: UUID, request_hash: str, request: VerifyIn, source: OrderRow
) -> bool:
    """Insert an order that verifies the answers of `source`; False when its key is taken."""
    statement = (
        insert(OrderRow)
        .values(
            id=order_id,
            request_hash=request_hash,
            purpose=OrderPurpose.VERIFY,
            sampling=request.sampling.model_dump(mode="json"),
            **request.model_dump(exclude={"sampling"}),
            **{name: getattr(source, name) for name in ("campaign_id", "selection", "max_attempts", "deadline_s")},
        )
        .on_conflict_do_nothing()
        .returning(OrderRow.id)
    )
    return (await session.execute(statement)).scalar_one_or_none() is not None


async def add_assignments(session: AsyncSession, order_id: UUID, source_id: UUID, request: VerifyIn) -> int:
    """One a group of `source_id` with a judged answer to a usable training question; returns how many."""
    judged = ResponseRow.answer.is_not(None) & (ResponseRow.outcome != VerdictOutcome.UNSCORED)
    has_answer = select(literal(1)).where(ResponseRow.group_id == GroupRow.id, judged).exists()
    assignment_id = cast(func.md5(cast(literal(f"{order_id}:"), String).concat(cast(GroupRow.id, String))), Uuid)
    policy = literal(request.policy_id, Uuid), literal(request.policy_version), literal(request.priority)
    source = (
        select(assignment_id, literal(order_id), GroupRow.question_id, *policy)
        .join(QuestionRow, QuestionRow.id == GroupRow.question_id)
        .where(
            GroupRow.order_id == source_id,
            QuestionRow.split == Split.TRAIN,
            QuestionRow.state.in_(USABLE_STATES),
            has_answer,
        )
    )
    columns = ["id", "order_id", "question_id", "policy_id", "policy_version", "priority"]
    made = insert(AssignmentRow).from_select(columns, source, include_defaults=False).returning(AssignmentRow.id)
    count = len((await session.execute(made)).all())
    links = (
        select(AssignmentRow.id, GroupRow.id)
        .join(GroupRow, assignment_id == AssignmentRow.id)
        .where(AssignmentRow.order_id == order_id, GroupRow.order_id == source_id)
    )
    columns = ["assignment_id", "group_id"]
    await session.execute(insert(ReverificationRow).from_select(columns, links, include_defaults=False))
    return count


async def sources(session: AsyncSession, assignment_ids: Sequence[UUID]) -> Mapping[UUID, Source]:
    """What each of these assignments verifies."""
    statement = (
        select(ReverificationRow.assignment_id, ReverificationRow.group_id, OrderRow.style)
        .join(AssignmentRow, AssignmentRow.id == ReverificationRow.assignment_id)
        .join(OrderRow, OrderRow.id == AssignmentRow.order_id)
        .where(ReverificationRow.assignment_id.in_(assignment_ids), OrderRow.purpose == OrderPurpose.VERIFY)
    )
    return {row.assignment_id: Source(row.group_id, row.style) for row in await session.execute(statement)}


async def segments(session: AsyncSession, group_ids: Sequence[UUID]) -> Mapping[UUID, list[Any]]:
    """The segments of each response of these groups, in the order of their positions."""
    statement = (
        select(ResponseRow.group_id, ResponseRow.segments)
        .where(ResponseRow.group_id.in_(group_ids))
        .order_by(ResponseRow.group_id, ResponseRow.position)
    )
    found: dict[UUID, list[Any]] = {group_id: [] for group_id in group_ids}
    for row in await session.execute(statement):
        found[row.group_id].append(row.segments)
    return found


async def yields(session: AsyncSession, order_id: UUID) -> Sequence[Row[*tuple[Any, ...]]]:
    """(prompt, outcome, n) of an order's verifications."""
    statement = (
        select(ResponseRow.verifier, ResponseRow.outcome, func.count().label("n"))
        .join(GroupRow, GroupRow.id == ResponseRow.group_id)
        .where(GroupRow.order_id == order_id)
        .group_by(ResponseRow.verifier, ResponseRow.outcome)
        .order_by(ResponseRow.verifier, ResponseRow.outcome)
    )
    return (await session.execute(statement)).all()
