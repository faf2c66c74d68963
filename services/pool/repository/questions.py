"""Questions, their events and their pass rates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import PassRateRow, QuestionEventRow, QuestionRow
from services.pool.repository import difficulty
from services.pool.repository.counters import Deltas
from services.pool.router import UNUSABLE_STATES, Standing, pool_moves
from shared.contracts.questions import Question, QuestionKind, QuestionState, Split


@dataclass(frozen=True, slots=True)
class Move:
    """A question's new standing, and what moved it."""

    question_id: UUID
    before: Standing
    after: Standing
    reason: str
    order_id: UUID | None


def standing(row: QuestionRow) -> Standing:
    """Where a question stands."""
    return Standing(
        split=Split(row.split),
        state=QuestionState(row.state),
        tiny=row.tiny,
        level=row.level,
        pass_rate=row.pass_rate,
        probed_version=row.probed_version,
    )


def to_contract(row: QuestionRow) -> Question:
    """The wire form of a row."""
    return Question.model_construct(
        id=row.id,
        campaign_id=row.campaign_id,
        text=row.text,
        answer=row.answer,
        solution=row.solution,
        kind=QuestionKind(row.kind),
        split=Split(row.split),
        domain=row.domain,
        source=row.source,
        state=QuestionState(row.state),
        tiny=row.tiny,
        level=row.level,
        pass_rate=row.pass_rate,
    )


async def lock(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, QuestionRow]:
    """Questions by id, locked in the order of their ids."""
    statement = (
        select(QuestionRow)
        .where(QuestionRow.id.in_(ids))
        .order_by(QuestionRow.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return {row.id: row for row in (await session.execute(statement)).scalars()}


async def by_ids(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, QuestionRow]:
    """Questions by id."""
    statement = select(QuestionRow).where(QuestionRow.id.in_(ids))
    return {row.id: row for row in (await session.execute(statement)).scalars()}


async def unusable(session: AsyncSession, campaign_id: UUID) -> set[UUID]:
    """The quarantined and retracted questions of a campaign."""
    statement = select(QuestionRow.id).where(
        QuestionRow.campaign_id == campaign_id, QuestionRow.state.in_(UNUSABLE_STATES)
    )
    return set((await session.execute(statement)).scalars())


async def move(session: AsyncSession, campaign_id: UUID, moves: Sequence[Move], deltas: Deltas) -> None:
    """Write new standings of locked questions of one campaign, an event for each change of pool, and the counters."""
    if not moves:
        return
    table: Any = QuestionRow.__table__
    connection = await session.connection()
    await connection.execute(
        update(table)
        .where(table.c.id == bindparam("b_id"))
        .values({name: bindparam(f"b_{name}") for name in ("state", "tiny", "level", "pass_rate", "probed_version")}),
        [
            {
                "b_id": move.question_id,
                "b_state": move.after.state,
                "b_tiny": move.after.tiny,
                "b_level": move.after.level,
                "b_pass_rate": move.after.pass_rate,
                "b_probed_version": move.after.probed_version,
            }
            for move in sorted(moves, key=lambda move: move.question_id)
        ],
    )
    events = [event | {"campaign_id": campaign_id} for move in moves for event in _events(move)]
    if events:
        await session.execute(insert(QuestionEventRow), events)
    for move in moves:
        for name in move.after.counted_as():
            deltas.add(campaign_id, name)
        for name in move.before.counted_as():
            deltas.add(campaign_id, name, -1)
        difficulty.count(campaign_id, move.before, move.after, move.reason, deltas)


def _events(move: Move) -> list[dict[str, Any]]:
    return [
        {
            "question_id": move.question_id,
            "from_state": from_pool,
            "to_state": to_pool,
            "reason": move.reason,
            "order_id": move.order_id,
        }
        for from_pool, to_pool in pool_moves(move.before, move.after)
    ]


async def pass_rates(
    session: AsyncSession, order_ids: Sequence[UUID], question_ids: Sequence[UUID]
) -> dict[tuple[UUID, UUID, UUID], tuple[int, int]]:
    """(n, correct) measured so far by (question, policy, order); stable while the questions are locked."""
    statement = select(PassRateRow).where(
        PassRateRow.order_id.in_(order_ids), PassRateRow.question_id.in_(question_ids)
    )
    rows = (await session.execute(statement.execution_options(populate_existing=True))).scalars()
    return {(row.question_id, row.policy_id, row.order_id): (row.n, row.correct) for row in rows}


async def put_pass_rates(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> None:
    """Insert or replace pass rates; their questions must be locked."""
    if not rows:
        return
    statement = insert(PassRateRow)
    changed = ("n", "correct", "mean", "variance", "level")
    merged = statement.on_conflict_do_update(
        index_elements=["question_id", "policy_id", "order_id"],
        set_={name: statement.excluded[name] for name in changed} | {"updated_at": func.now()},
    )
    await session.execute(merged, list(rows))
