"""Groups: written by COPY, read without an object a token."""

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, Text, Uuid, any_, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import AssignmentRow, GroupRow, GroupTokensRow, OrderRow, QuestionRow, ResponseRow
from services.pool.repository import questions
from shared.contracts.generation import FinishReason
from shared.packed import Buffer, PackedGroup, PackedResponse, split

ROWS_AT_ONCE = 2000
_IDS = bindparam("ids", type_=ARRAY(Uuid))


class Claimed(NamedTuple):
    """An assignment whose group comes in, with what the group needs of its order; `now` is the transaction's time."""

    id: UUID
    question_id: UUID
    policy_id: UUID
    policy_version: int
    state: str
    reason: str | None
    lease_token: UUID | None
    is_over: bool
    order_id: UUID
    campaign_id: UUID
    purpose: str
    k: int
    is_standing: bool
    now: datetime


class NewGroup(NamedTuple):
    """A row of `groups`, as COPY takes it."""

    id: UUID
    assignment_id: UUID
    order_id: UUID
    question_id: UUID
    policy_id: UUID
    policy_version: int
    scored: int
    correct: int
    unscored: int
    tokens: int
    late: bool
    consumption: str
    drop_reason: str | None
    created_at: datetime


class NewResponse(NamedTuple):
    """A row of `responses`; `segments` is JSON text."""

    group_id: UUID
    position: int
    text: str
    finish_reason: str
    tokens: int
    outcome: str
    unscored_reason: str | None
    answer: str | None
    segments: str
    unparsed: str | None
    verifier: str
    milliseconds: float


class NewTokens(NamedTuple):
    """A row of `group_tokens`."""

    group_id: UUID
    created_at: datetime
    prompt_token_ids: Buffer
    token_ids: Buffer
    logprobs: Buffer
    token_ends: Buffer


_CLAIMED = (
    select(
        AssignmentRow.id,
        AssignmentRow.question_id,
        AssignmentRow.policy_id,
        AssignmentRow.policy_version,
        AssignmentRow.state,
        AssignmentRow.reason,
        AssignmentRow.lease_token,
        func.coalesce(AssignmentRow.available_at <= func.now(), True),
        OrderRow.id,
        OrderRow.campaign_id,
        OrderRow.purpose,
        OrderRow.k,
        OrderRow.watermark_groups.is_not(None),
        func.now(),
    )
    .join(OrderRow, OrderRow.id == AssignmentRow.order_id)
    .where(AssignmentRow.id == any_(_IDS))
    .order_by(AssignmentRow.id)
    .with_for_update(of=AssignmentRow)
)


async def lock_assignments(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, Claimed]:
    """Assignments by id, locked in the order of their ids."""
    rows: Iterable[Sequence[Any]] = await session.execute(_CLAIMED, {"ids": list(ids)})
    return {row[0]: Claimed._make(row) for row in rows}


async def insert_all(
    session: AsyncSession, groups: Sequence[NewGroup], responses: Sequence[NewResponse], tokens: Sequence[NewTokens]
) -> None:
    """Insert groups, their responses and their tokens: one COPY a table. The session's transaction has begun."""
    await _copy(session, GroupRow, NewGroup, groups)
    await _copy(session, ResponseRow, NewResponse, responses)
    await _copy(session, GroupTokensRow, NewTokens, tokens)


async def _copy(session: AsyncSession, table: Any, row: Any, records: Sequence[tuple[Any, ...]]) -> None:
    connection = await (await session.connection()).get_raw_connection()
    driver: Any = connection.driver_connection
    await driver.copy_records_to_table(
        table.__tablename__, schema_name=table.metadata.schema, columns=row._fields, records=records
    )


_GROUPS = (
    select(
        GroupRow.id,
        GroupRow.order_id,
        GroupRow.policy_id,
        GroupRow.policy_version,
        GroupRow.created_at,
        QuestionRow,
    )
    .join(QuestionRow, QuestionRow.id == GroupRow.question_id)
    .where(GroupRow.id == any_(_IDS))
)
_RESPONSES = (
    select(*(getattr(ResponseRow, name) for name in NewResponse._fields if name != "segments"))
    .add_columns(cast(ResponseRow.segments, Text).label("segments"))
    .where(ResponseRow.group_id == any_(_IDS))
    .order_by(ResponseRow.group_id, ResponseRow.position)
)
_TOKENS = select(*(getattr(GroupTokensRow, name) for name in NewTokens._fields)).where(
    GroupTokensRow.group_id == any_(_IDS), GroupTokensRow.created_at.between(bindparam("first"), bindparam("last"))
)


async def load(session: AsyncSession, ids: Sequence[UUID]) -> list[PackedGroup]:
    """Whole groups, in the order of `ids`: three queries, however many there are."""
    if not ids:
        return []
    groups: Sequence[Any] = (await session.execute(_GROUPS, {"ids": list(ids)})).all()
    responses: dict[UUID, list[Any]] = defaultdict(list)
    for row in await session.execute(_RESPONSES, {"ids": list(ids)}):
        responses[row[0]].append(row)
    times = [group.created_at for group in groups]
    span = {"ids": list(ids), "first": min(times), "last": max(times)} if times else None
    tokens = {row[0]: row for row in await session.execute(_TOKENS, span)} if span else {}
    loaded = {group.id: _group(group, responses[group.id], tokens.get(group.id)) for group in groups}
    return [loaded[group_id] for group_id in ids if group_id in loaded]


async def scored(session: AsyncSession, order_id: UUID) -> AsyncIterator[Row[Any]]:
    """Of every response of an order: level of its question, outcome, segments, unparsed, tokens. Streamed."""
    statement = (
        select(
            QuestionRow.level,
            ResponseRow.outcome,
            ResponseRow.segments,
            ResponseRow.unparsed.is_not(None).label("unparsed"),
            ResponseRow.tokens,
        )
        .join(GroupRow, GroupRow.id == ResponseRow.group_id)
        .join(QuestionRow, QuestionRow.id == GroupRow.question_id)
        .where(GroupRow.order_id == order_id)
    )
    async for row in await session.stream(statement.execution_options(yield_per=ROWS_AT_ONCE)):
        yield row


def _group(group: Any, rows: Sequence[Any], tokens: Any) -> PackedGroup:
    lengths = [row.tokens if tokens is not None else 0 for row in rows]
    arrays = (b"", b"", b"") if tokens is None else (tokens.token_ids, tokens.logprobs, tokens.token_ends)
    parts = zip(*(split(array, lengths) for array in arrays), strict=True)
    return PackedGroup(
        id=group.id,
        order_id=group.order_id,
        question=questions.to_contract(group.QuestionRow),
        policy_id=group.policy_id,
        policy_version=group.policy_version,
        prompt_token_ids=b"" if tokens is None else tokens.prompt_token_ids,
        responses=tuple(
            PackedResponse(row.text, FinishReason(row.finish_reason), token_ids, logprobs, token_ends, _verdict(row))
            for row, (token_ids, logprobs, token_ends) in zip(rows, parts, strict=True)
        ),
        created_at=group.created_at,
        tokens_expired=tokens is None,
    )


def _verdict(row: Any) -> str:
    """The JSON of a stored verdict, put together from what is JSON already: nobody here looks into it."""
    words = {
        "outcome": row.outcome,
        "unscored_reason": row.unscored_reason,
        "answer": row.answer,
        "unparsed": row.unparsed,
        "verifier": row.verifier,
        "milliseconds": row.milliseconds,
    }
    return f'{json.dumps(words)[:-1]}, "segments": {row.segments}}}'
