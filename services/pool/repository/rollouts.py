"""What a standing order takes next: a queue of questions, drawn by weight some thousand at a time.

The order has a line of turns. A question of weight w in (0, 1] has a turn every 1/w on it, each moved on by a random share of
that distance: turn n of weight 1 is somewhere in [n, n + 1). Turns are taken as they lie on the line, so a question's share is
its weight's, its next turn is never further than 2/w away, and with equal weights every question is taken once before any is
taken again (stride scheduling, Waldspurger 1995, with jitter). Weights are those of the moment of the draw.

Invariant: the same questions, pass rates and seed give the same turns. Limits: a draw reads every question that the order selects,
so it takes seconds for a million of them; that is why it draws thousands and happens in the background. What is queued keeps its turn
when its weight changes; what no longer matches the selection is left out.
"""

import hashlib
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    CursorResult,
    Double,
    Select,
    Uuid,
    and_,
    bindparam,
    case,
    cast,
    column,
    delete,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import (
    AssignmentRow,
    OrderRow,
    PassRateRow,
    QuestionRow,
    RolloutCountRow,
    RolloutQueueRow,
)
from services.pool.repository import selections
from shared.contracts.orders import OrderPurpose, QuestionSelection
from shared.contracts.weights import QuestionWeights, WeightBy

DRAWN_AT_ONCE = 8192
TURNS_AT_ONCE = 0.5  # less than the least distance between two turns of a question
LARGEST_LEARNABILITY = 4 / 27  # of μ²(1 − μ), at μ = 2/3
MEASURING = (OrderPurpose.PROBE, OrderPurpose.ROLLOUT)
_MANTISSA = (1 << 53) - 1

_MISSING = text("""
    SELECT o.id, o.watermark_groups
        - (SELECT count(*) FROM (SELECT 1 FROM pool.groups g
            WHERE g.order_id = o.id AND g.consumption = 'waiting' LIMIT o.watermark_groups) AS waiting)
        - (SELECT count(*) FROM (SELECT 1 FROM pool.assignments a
            WHERE a.order_id = o.id AND a.available_at IS NOT NULL LIMIT o.watermark_groups) AS unfinished) AS missing
    FROM pool.orders o WHERE o.state = 'open' AND o.watermark_groups IS NOT NULL
        AND (o.id = :order_id OR :order_id IS NULL AND NOT o.on_demand)
    ORDER BY o.id
""").bindparams(bindparam("order_id", type_=Uuid))
_COUNT_TURNS = text("""
    INSERT INTO pool.rollout_counts (order_id, question_id, times, turn)
    SELECT :order_id, drawn.id, 1, drawn.turn FROM unnest(:ids, :turns) AS drawn (id, turn)
    ON CONFLICT (order_id, question_id) DO UPDATE SET times = rollout_counts.times + 1, turn = excluded.turn
""").bindparams(
    bindparam("order_id", type_=Uuid), bindparam("ids", type_=ARRAY(Uuid)), bindparam("turns", type_=ARRAY(Double))
)


@dataclass(frozen=True, slots=True)
class Turn:
    """A question's next place on the order's line; `start` is that place without its random share."""

    question_id: UUID
    start: float
    due: float


async def missing(session: AsyncSession, order_id: UUID | None = None) -> dict[UUID, int]:
    """How many groups an open standing order, or each that is not `on_demand`, is below its watermark, where it is.

    Counts no further than the watermark.
    """
    rows = await session.execute(_MISSING, {"order_id": order_id})
    return {row.id: row.missing for row in rows if row.missing > 0}


async def lock(session: AsyncSession, order_id: UUID) -> None:
    """One at a time draws and takes turns of an order."""
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"top-up:{order_id}", 0))))


async def queued(session: AsyncSession, order_id: UUID) -> int:
    """About how many turns are drawn and not taken."""
    of_order = RolloutQueueRow.order_id == order_id
    ends = select(func.min(RolloutQueueRow.position), func.max(RolloutQueueRow.position)).where(of_order)
    first, last = (await session.execute(ends)).one()
    return 0 if first is None else int(last - first + 1)


async def take(session: AsyncSession, order: OrderRow, groups: int) -> tuple[int, int]:
    """Take up to `groups` turns from the queue; returns how many, and how many assignments they made.

    A question that no longer matches the selection makes none.
    """
    of_order = RolloutQueueRow.order_id == order.id
    first = select(RolloutQueueRow.position).where(of_order).order_by(RolloutQueueRow.position).limit(groups)
    gone = delete(RolloutQueueRow).where(of_order, RolloutQueueRow.position.in_(first))
    rows = (await session.execute(gone.returning(RolloutQueueRow.position, RolloutQueueRow.question_id))).all()
    if not rows:
        return 0, 0
    ids = cast([row.question_id for row in sorted(rows, key=lambda row: row.position)], ARRAY(Uuid))
    taken = func.unnest(ids).table_valued(column("id", Uuid), with_ordinality="place").render_derived("taken")
    fixed = (order.id, order.policy_id, order.policy_version, order.priority)
    source = (
        select(taken.c.id, *map(literal, fixed))
        .join_from(taken, QuestionRow, QuestionRow.id == taken.c.id)
        .where(selections.matches(order.campaign_id, QuestionSelection.model_validate(order.selection)))
        .order_by(taken.c.place)
    )
    columns = ["question_id", "order_id", "policy_id", "policy_version", "priority"]
    inserted = await session.execute(insert(AssignmentRow).from_select(columns, source, include_defaults=False))
    assert isinstance(inserted, CursorResult)
    return len(rows), inserted.rowcount


async def draw(session: AsyncSession, order: OrderRow) -> int:
    """Put the next turns of a locked order into its queue; returns how many: 0 when no question has a weight."""
    rows = await session.execute(await _nearest(session, order))
    nearest = [Turn(row.id, row.start, row.due) for row in rows]
    turns = [turn for turn in nearest if turn.due < nearest[0].due + TURNS_AT_ONCE]
    if not turns:
        return 0
    ids = [turn.question_id for turn in turns]
    starts = [turn.start for turn in turns]
    await session.execute(_COUNT_TURNS, {"order_id": order.id, "ids": ids, "turns": starts})
    queue = select(literal(order.id), func.unnest(cast(ids, ARRAY(Uuid))))
    await session.execute(
        insert(RolloutQueueRow).from_select(["order_id", "question_id"], queue, include_defaults=False)
    )
    order.turns = max(order.turns, turns[-1].due)
    return len(turns)


async def _nearest(session: AsyncSession, order: OrderRow) -> Select[UUID, float, float]:
    """The nearest turns, in order. A question that comes late, or fell behind, joins where the order has come to."""
    selection = QuestionSelection.model_validate(order.selection)
    own_count = and_(RolloutCountRow.order_id == order.id, RolloutCountRow.question_id == QuestionRow.id)
    weighed = (
        select(
            QuestionRow.id,
            _weight(order.campaign_id, QuestionWeights.model_validate(order.weights)).label("weight"),
            func.coalesce(RolloutCountRow.times, 0).label("times"),
            RolloutCountRow.turn.label("last"),
        )
        .outerjoin(RolloutCountRow, own_count)
        .where(selections.matches(order.campaign_id, selection))
        .offset(0)  # each weight is worked out once
    )
    if selection.limit is not None or selection.fraction < 1 or selection.reprobe is not None:
        weighed = weighed.where(QuestionRow.id.in_(await selections.selected(session, order.campaign_id, selection)))
    question = weighed.subquery("question").c
    step = 1.0 / question.weight
    next_start = func.coalesce(question.last + step, 0.0)
    late = literal(order.turns - TURNS_AT_ONCE, Double) - step  # where no question is that joined in time
    start = case((next_start < late, func.ceil(late * question.weight) * step), else_=next_start)
    place = select(
        question.id, start.label("start"), (start + step * _share(order.id, selection.seed, question)).label("due")
    ).where(question.weight > 0)
    turn = place.subquery("turn").c
    return select(turn.id, turn.start, turn.due).order_by(turn.due, turn.id).limit(DRAWN_AT_ONCE)


def _share(order_id: UUID, seed: int, question: Any) -> ColumnElement[Any]:
    """Uniform in (0, 1), by order, seed, question and how often it was taken. Hash partitions rest on this hash, so it stays."""
    digest = hashlib.sha256(f"{order_id}:{seed}".encode()).digest()
    own_seed = literal(int.from_bytes(digest[:7], "big"), BigInteger) + question.times
    bits = func.uuid_hash_extended(question.id, own_seed, type_=BigInteger).bitwise_and(literal(_MANTISSA, BigInteger))
    return (cast(bits, Double) + 0.5) / literal(float(_MANTISSA + 1), Double)


def _weight(campaign_id: UUID, weights: QuestionWeights) -> ColumnElement[float]:
    """The weight of a question in [0, 1], as `QuestionWeights` says it."""
    if weights.by is WeightBy.UNIFORM:
        return literal(1.0, Double)
    unmeasured = literal(weights.unmeasured, Double)
    if weights.levels is not None:
        largest = max(weights.levels)
        by_level = {level: literal(weight / largest, Double) for level, weight in enumerate(weights.levels, start=1)}
        return case(by_level, value=QuestionRow.level, else_=unmeasured)
    measuring = select(OrderRow.id).where(OrderRow.campaign_id == campaign_id, OrderRow.purpose.in_(MEASURING))
    learnability = PassRateRow.mean * PassRateRow.variance / LARGEST_LEARNABILITY
    newest = (
        select(func.least(1.0, func.greatest(learnability, literal(weights.floor, Double))))
        .where(PassRateRow.question_id == QuestionRow.id, PassRateRow.order_id.in_(measuring))
        .order_by(PassRateRow.policy_version.desc(), PassRateRow.updated_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    return func.coalesce(newest, unmeasured)
