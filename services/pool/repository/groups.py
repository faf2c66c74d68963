"""Groups and their responses."""

import base64
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import GroupRow, QuestionRow, ResponseRow
from services.pool.repository import questions
from services.pool.router import UNUSABLE_STATES
from shared.contracts.generation import FinishReason
from shared.contracts.orders import Group, ResponseIn
from shared.contracts.questions import Split
from shared.contracts.verdicts import ScoredSegment, UnscoredReason, Verdict, VerdictOutcome

BYTES_PER_TOKEN = 4
ROWS_AT_ONCE = 2000


async def insert_all(
    session: AsyncSession, groups: Sequence[dict[str, Any]], responses: Sequence[dict[str, Any]]
) -> None:
    """Insert groups and their responses."""
    if groups:
        await session.execute(insert(GroupRow), list(groups))
        await session.execute(insert(ResponseRow), list(responses))


async def load(session: AsyncSession, ids: Sequence[UUID]) -> list[Group]:
    """Whole groups, in the order of `ids`."""
    statement = select(GroupRow, QuestionRow).join(QuestionRow, QuestionRow.id == GroupRow.question_id)
    rows = (await session.execute(statement.where(GroupRow.id.in_(ids)))).tuples().all()
    responses: dict[UUID, list[ResponseIn]] = defaultdict(list)
    statement_of_responses = (
        select(ResponseRow).where(ResponseRow.group_id.in_(ids)).order_by(ResponseRow.group_id, ResponseRow.position)
    )
    for response in (await session.execute(statement_of_responses)).scalars():
        responses[response.group_id].append(_response(response))
    groups = {group.id: _group(group, question, responses[group.id]) for group, question in rows}
    return [groups[group_id] for group_id in ids if group_id in groups]


async def scored(session: AsyncSession, order_id: UUID) -> AsyncIterator[Row[Any]]:
    """Of every response of an order: level of its question, outcome, segments, unparsed, tokens. Streamed."""
    statement = (
        select(
            QuestionRow.level,
            ResponseRow.outcome,
            ResponseRow.segments,
            ResponseRow.unparsed.is_not(None).label("unparsed"),
            (func.length(ResponseRow.token_ids) / BYTES_PER_TOKEN).label("tokens"),
        )
        .join(GroupRow, GroupRow.id == ResponseRow.group_id)
        .join(QuestionRow, QuestionRow.id == GroupRow.question_id)
        .where(GroupRow.order_id == order_id)
    )
    async for row in await session.stream(statement.execution_options(yield_per=ROWS_AT_ONCE)):
        yield row


async def trainable(session: AsyncSession, order_id: UUID) -> AsyncIterator[Row[Any]]:
    """Scored responses of an order to usable train questions, by question: what snapshots are built from. Streamed."""
    statement = (
        select(
            QuestionRow.id.label("question_id"),
            QuestionRow.text.label("question"),
            QuestionRow.solution,
            QuestionRow.domain,
            ResponseRow.text,
            ResponseRow.segments,
        )
        .join(GroupRow, GroupRow.id == ResponseRow.group_id)
        .join(QuestionRow, QuestionRow.id == GroupRow.question_id)
        .where(
            GroupRow.order_id == order_id,
            QuestionRow.split == Split.TRAIN,
            QuestionRow.state.not_in(UNUSABLE_STATES),
            ResponseRow.outcome != VerdictOutcome.UNSCORED,
        )
        .order_by(QuestionRow.id, GroupRow.policy_version, GroupRow.id, ResponseRow.position)
    )
    async for row in await session.stream(statement.execution_options(yield_per=ROWS_AT_ONCE)):
        yield row


def unpacked(packed: str) -> bytes:
    """The bytes of a packed array."""
    return base64.b64decode(packed)


def _packed(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _group(group: GroupRow, question: QuestionRow, responses: list[ResponseIn]) -> Group:
    return Group.model_construct(
        id=group.id,
        order_id=group.order_id,
        question=questions.to_contract(question),
        policy_id=group.policy_id,
        policy_version=group.policy_version,
        prompt_token_ids=_packed(group.prompt_token_ids),
        responses=tuple(responses),
        created_at=group.created_at,
    )


def _response(row: ResponseRow) -> ResponseIn:
    reason = None if row.unscored_reason is None else UnscoredReason(row.unscored_reason)
    verdict = Verdict.model_construct(
        outcome=VerdictOutcome(row.outcome),
        unscored_reason=reason,
        answer=row.answer,
        segments=tuple(ScoredSegment.model_validate(segment) for segment in row.segments),
        unparsed=row.unparsed,
        verifier=row.verifier,
        milliseconds=row.milliseconds,
    )
    return ResponseIn.model_construct(
        text=row.text,
        finish_reason=FinishReason(row.finish_reason),
        token_ids=_packed(row.token_ids),
        logprobs=_packed(row.logprobs),
        token_ends=_packed(row.token_ends),
        verdict=verdict,
    )
