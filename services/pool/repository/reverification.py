"""Re-verification: orders over stored groups, the verdicts that come of them, and what flipped."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, String, Uuid, bindparam, cast, func, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import (
    AssignmentRow,
    GroupRow,
    OrderRow,
    QuestionRow,
    ResponseRow,
    ReverificationRow,
    VerdictRow,
)
from services.pool.router import USABLE_STATES
from shared.contracts.orders import OrderPurpose

# What a verdict says; `responses` has the one that counts.
VERDICT = ("verifier", "outcome", "unscored_reason", "answer", "segments", "unparsed", "milliseconds")
_COPIED = ("campaign_id", "policy_id", "policy_version", "k", "sampling", "selection", "max_attempts", "deadline_s")


async def insert_order(session: AsyncSession, order_id: UUID, key: str, request_hash: str, source: OrderRow) -> bool:
    """Insert an order that judges the responses of `source` again; False when its key is taken."""
    statement = (
        insert(OrderRow)
        .values(
            id=order_id,
            key=key,
            request_hash=request_hash,
            purpose=OrderPurpose.REVERIFY,
            **{name: getattr(source, name) for name in _COPIED},
        )
        .on_conflict_do_nothing()
        .returning(OrderRow.id)
    )
    return (await session.execute(statement)).scalar_one_or_none() is not None


async def add_assignments(session: AsyncSession, order_id: UUID, source_id: UUID, verifiers: Sequence[str]) -> int:
    """One a group of `source_id` to a usable question with a response that none of `verifiers` judged; returns how many."""
    old = select(literal(1)).where(ResponseRow.group_id == GroupRow.id, ResponseRow.verifier.not_in(verifiers)).exists()
    assignment_id = cast(func.md5(cast(literal(f"{order_id}:"), String).concat(cast(GroupRow.id, String))), Uuid)
    source = (
        select(assignment_id, literal(order_id), GroupRow.question_id, GroupRow.policy_id, GroupRow.policy_version)
        .join(QuestionRow, QuestionRow.id == GroupRow.question_id)
        .where(GroupRow.order_id == source_id, QuestionRow.state.in_(USABLE_STATES), old)
    )
    columns = ["id", "order_id", "question_id", "policy_id", "policy_version"]
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


async def groups_of(session: AsyncSession, assignment_ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """The group that each assignment judges again."""
    statement = select(ReverificationRow).where(ReverificationRow.assignment_id.in_(assignment_ids))
    return {row.assignment_id: row.group_id for row in (await session.execute(statement)).scalars()}


async def texts(session: AsyncSession, group_ids: Sequence[UUID]) -> Mapping[UUID, list[str]]:
    """The responses of groups, in the order of their positions."""
    statement = (
        select(ResponseRow.group_id, ResponseRow.text)
        .where(ResponseRow.group_id.in_(group_ids))
        .order_by(ResponseRow.group_id, ResponseRow.position)
    )
    found: dict[UUID, list[str]] = {group_id: [] for group_id in group_ids}
    for row in await session.execute(statement):
        found[row.group_id].append(row.text)
    return found


async def lock_groups(session: AsyncSession, group_ids: Sequence[UUID]) -> dict[UUID, tuple[GroupRow, OrderRow]]:
    """Groups by id with the order that sampled them, locked in the order in which batches lock them."""
    statement = (
        select(GroupRow, OrderRow)
        .join(OrderRow, OrderRow.id == GroupRow.order_id)
        .where(GroupRow.id.in_(group_ids))
        .order_by(GroupRow.sequence)
        .with_for_update(of=GroupRow)
        .execution_options(populate_existing=True)
    )
    return {row[0].id: (row[0], row[1]) for row in (await session.execute(statement)).tuples()}


async def judged(session: AsyncSession, group_ids: Sequence[UUID]) -> Mapping[UUID, list[Row[*tuple[Any, ...]]]]:
    """What counts for the responses of locked groups: position, outcome, reason and verifier, by group."""
    statement = (
        select(
            ResponseRow.group_id,
            ResponseRow.position,
            ResponseRow.outcome,
            ResponseRow.unscored_reason,
            ResponseRow.verifier,
        )
        .where(ResponseRow.group_id.in_(group_ids))
        .order_by(ResponseRow.group_id, ResponseRow.position)
    )
    found: dict[UUID, list[Row[*tuple[Any, ...]]]] = {group_id: [] for group_id in group_ids}
    for row in await session.execute(statement):
        found[row.group_id].append(row)
    return found


async def keep_first(session: AsyncSession, group_ids: Sequence[UUID]) -> None:
    """Copy the verdicts that came with the responses of these groups into the history, where they are not yet."""
    first = (
        select(
            ResponseRow.group_id,
            ResponseRow.position,
            GroupRow.order_id,
            *(getattr(ResponseRow, name) for name in VERDICT),
            GroupRow.created_at,
        )
        .join(GroupRow, GroupRow.id == ResponseRow.group_id)
        .where(ResponseRow.group_id.in_(group_ids))
    )
    columns = ["group_id", "position", "order_id", *VERDICT, "at"]
    statement = insert(VerdictRow).from_select(columns, first, include_defaults=False).on_conflict_do_nothing()
    await session.execute(statement)


async def add(session: AsyncSession, verdicts: Sequence[dict[str, Any]]) -> None:
    """Add verdicts to the history."""
    await session.execute(insert(VerdictRow), list(verdicts))


async def replace(session: AsyncSession, verdicts: Sequence[dict[str, Any]], counts: Sequence[dict[str, Any]]) -> None:
    """Make these verdicts count, and write the new counts (scored, correct, unscored) of their groups."""
    connection = await session.connection()
    responses: Any = ResponseRow.__table__
    groups: Any = GroupRow.__table__
    if verdicts:
        which = (responses.c.group_id == bindparam("b_group_id")) & (responses.c.position == bindparam("b_position"))
        statement = update(responses).where(which).values({name: bindparam(f"b_{name}") for name in VERDICT})
        names = ("group_id", "position", *VERDICT)
        await connection.execute(statement, [{f"b_{name}": verdict[name] for name in names} for verdict in verdicts])
    if counts:
        counted = ("scored", "correct", "unscored")
        statement = update(groups).where(groups.c.id == bindparam("b_id"))
        statement = statement.values({name: bindparam(f"b_{name}") for name in counted})
        await connection.execute(statement, [{f"b_{name}": row[name] for name in ("id", *counted)} for row in counts])


async def deciding_probes(session: AsyncSession, question_ids: Sequence[UUID]) -> set[UUID]:
    """Of each question and policy version the newest probe's group with a scored response."""
    statement = (
        select(GroupRow.id)
        .distinct(GroupRow.question_id, GroupRow.policy_version)
        .join(OrderRow, OrderRow.id == GroupRow.order_id)
        .where(GroupRow.question_id.in_(question_ids), OrderRow.purpose == OrderPurpose.PROBE, GroupRow.scored > 0)
        .order_by(GroupRow.question_id, GroupRow.policy_version, GroupRow.sequence.desc())
    )
    return set((await session.execute(statement)).scalars())


async def taught(session: AsyncSession, question_ids: Sequence[UUID]) -> set[UUID]:
    """The questions with a right teacher's answer."""
    statement = (
        select(GroupRow.question_id)
        .join(OrderRow, OrderRow.id == GroupRow.order_id)
        .where(GroupRow.question_id.in_(question_ids), OrderRow.purpose == OrderPurpose.TEACH, GroupRow.correct > 0)
    )
    return set((await session.execute(statement)).scalars())


async def history(session: AsyncSession, group_ids: Sequence[UUID]) -> Mapping[UUID, list[VerdictRow]]:
    """The verdicts of responses that were judged again, oldest first, by group."""
    statement = (
        select(VerdictRow)
        .where(VerdictRow.group_id.in_(group_ids))
        .order_by(VerdictRow.group_id, VerdictRow.position, VerdictRow.at)
    )
    found: dict[UUID, list[VerdictRow]] = {group_id: [] for group_id in group_ids}
    for row in (await session.execute(statement)).scalars():
        found[row.group_id].append(row)
    return found


async def flip_counts(session: AsyncSession, order_id: UUID) -> Sequence[Row[*tuple[Any, ...]]]:
    """(kind, before, after, n) of the verdicts of a re-verification."""
    statement = (
        select(QuestionRow.kind, VerdictRow.before_outcome, VerdictRow.outcome, func.count().label("n"))
        .join(GroupRow, GroupRow.id == VerdictRow.group_id)
        .join(QuestionRow, QuestionRow.id == GroupRow.question_id)
        .where(VerdictRow.order_id == order_id, VerdictRow.before_outcome.is_not(None))
        .group_by(QuestionRow.kind, VerdictRow.before_outcome, VerdictRow.outcome)
        .order_by(QuestionRow.kind, VerdictRow.before_outcome, VerdictRow.outcome)
    )
    return (await session.execute(statement)).all()


async def flips(
    session: AsyncSession, order_id: UUID, after: tuple[UUID, int] | None, limit: int
) -> Sequence[Row[*tuple[Any, ...]]]:
    """The verdicts of a re-verification that say another outcome, by (group, position) behind `after`."""
    statement = (
        select(VerdictRow, GroupRow.question_id)
        .join(GroupRow, GroupRow.id == VerdictRow.group_id)
        .where(VerdictRow.order_id == order_id, VerdictRow.before_outcome != VerdictRow.outcome)
    )
    if after is not None:
        statement = statement.where(tuple_(VerdictRow.group_id, VerdictRow.position) > after)
    statement = statement.order_by(VerdictRow.group_id, VerdictRow.position).limit(limit)
    return (await session.execute(statement)).all()
