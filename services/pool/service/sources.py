"""From the pool's rows to what the recipes read: answered questions, or scored groups with their tokens."""

import base64
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.builders.answers import Answer, AnsweredQuestion
from services.pool.builders.scored import ScoredGroup, ScoredResponse
from services.pool.repository import groups, sources
from shared.contracts.generation import FinishReason
from shared.contracts.orders import OrderPurpose
from shared.contracts.verdicts import ScoredSegment, VerdictOutcome


async def answered_questions(
    session: AsyncSession, order_ids: Sequence[UUID], groups_at_once: int
) -> AsyncIterator[list[AnsweredQuestion]]:
    """Every question of these orders with its scored responses, a page at a time."""
    async for page in sources.pages(session, order_ids, groups_at_once):
        yield list(_by_question(await sources.answers(session, page)))


async def scored_groups(
    session: AsyncSession, order_ids: Sequence[UUID], groups_at_once: int
) -> AsyncIterator[list[ScoredGroup]]:
    """Every group of these orders, a page at a time."""
    async for page in sources.pages(session, order_ids, groups_at_once):
        yield [_scored(group) for group in await groups.load(session, page)]


def _by_question(responses: Sequence[Row[Any]]) -> Iterator[AnsweredQuestion]:
    """The questions of responses that are sorted by question."""
    for question_id, group in groupby(responses, key=lambda row: row.question_id):
        lines = list(group)
        first = lines[0]
        answers = tuple(map(_answer, lines))
        yield AnsweredQuestion(str(question_id), first.question, first.solution, first.domain, answers, first.level)


def _answer(line: Row[Any]) -> Answer:
    segments = tuple(ScoredSegment.model_validate(segment) for segment in line.segments)
    about = line.answer if line.purpose == OrderPurpose.VERIFY else None
    return Answer(line.text, segments, VerdictOutcome(line.outcome), FinishReason(line.finish_reason), about)


def _scored(group: Any) -> ScoredGroup:
    responses = [
        ScoredResponse(
            position=position,
            text=response.text,
            finish_reason=response.finish_reason,
            outcome=response.verdict.outcome,
            segments=response.verdict.segments,
            token_ids=_array(response.token_ids, "<i4"),
            logprobs=_array(response.logprobs, "<f4"),
            token_ends=_array(response.token_ends, "<i4"),
        )
        for position, response in enumerate(group.responses)
    ]
    return ScoredGroup(
        id=str(group.id),
        question_id=str(group.question.id),
        question=group.question.text,
        policy_id=str(group.policy_id),
        policy_version=group.policy_version,
        prompt_token_ids=_array(group.prompt_token_ids, "<i4"),
        responses=responses,
    )


def _array(packed: Any, dtype: str) -> Any:
    """The values of a packed array, in base64 or as bytes; None when there are none."""
    data = base64.b64decode(packed) if isinstance(packed, str) else packed
    return np.frombuffer(data, dtype=dtype) if len(data) else None
