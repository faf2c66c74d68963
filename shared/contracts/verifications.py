"""Verifications of stored answers (S²R stage 0): ordered by the cascade, written by a policy, kept by the pool as groups.

A verification is a response whose one segment is `verify`. Its `answer` is the answer that it checks; its outcome is `correct` iff its
verdict is the truth about that answer; its `verifier` is the style and the version of the prompt, as in `confirmative@1`.
"""

from uuid import UUID

from pydantic import Field

from shared.contracts.base import Contract, Items
from shared.contracts.generation import SamplingParameters
from shared.contracts.recipe import VerificationStyle
from shared.contracts.verdicts import VerdictOutcome

MAX_ASSIGNMENTS = 1024
MAX_PER_ANSWER = 4
MAX_ANSWERS = 64


class VerifyIn(Contract):
    """POST /v1/orders/{id}/verify: an order for `k` verifications of each distinct first answer of order {id}, by a policy.

    Idempotent by (campaign, key). Only answers to training questions are verified.
    """

    key: str = Field(min_length=1, max_length=100)
    policy_id: UUID
    policy_version: int = Field(ge=0)
    style: VerificationStyle = VerificationStyle.CONFIRMATIVE
    k: int = Field(default=1, ge=1, le=MAX_PER_ANSWER)
    sampling: SamplingParameters = SamplingParameters(temperature=0.7, max_tokens=1024)
    priority: int = Field(default=0, ge=-1000, le=1000)


class AnswersRequest(Contract):
    """POST /v1/verifications/answers: a sampling worker asks what to verify for assignments that it holds."""

    assignments: Items[UUID] = Field(min_length=1, max_length=MAX_ASSIGNMENTS)


class JudgedAnswer(Contract):
    """An answer, and the truth about it."""

    answer: str
    correct: bool


class AssignmentAnswers(Contract):
    """The distinct answers of an assignment's question, at most MAX_ANSWERS, and the style to verify them in."""

    assignment_id: UUID
    style: VerificationStyle
    answers: tuple[JudgedAnswer, ...]


class AnswersResult(Contract):
    """One entry an assignment that is known, in the order of the request."""

    items: tuple[AssignmentAnswers, ...]


class Yield(Contract):
    """How many verifications by one prompt came to which outcome."""

    prompt: str
    outcome: VerdictOutcome
    n: int


class Yields(Contract):
    """GET /v1/orders/{id}/yields: what came of an order for verifications; `correct` ones are used, no others."""

    order_id: UUID
    items: tuple[Yield, ...]
