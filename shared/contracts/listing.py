"""Lists: what they are asked for and a page of each. Made by the pool, read by people, the console and generated clients.

Every list is paged by an opaque cursor: `next` of a page is `after` of the one behind it. A cursor belongs to its list and
its filter; rows that are added meanwhile do not disturb it. A page says no total: what is counted is in /v1/pools and in
the orders.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, Field

from shared.contracts.base import Contract, Text
from shared.contracts.orders import Group, Order, OrderPurpose, OrderState
from shared.contracts.questions import Question, QuestionKind, QuestionState, Split
from shared.contracts.snapshots import Snapshot, SnapshotRecipe, SnapshotStatus

MIN_SEARCHED_CHARACTERS = 3
MAX_CURSOR_CHARACTERS = 500


def _searchable(text: str) -> str:
    if len(text.strip()) < MIN_SEARCHED_CHARACTERS:
        raise ValueError(
            f"must have at least {MIN_SEARCHED_CHARACTERS} characters: texts are looked up by pieces of three; write more of it"
        )
    return text


Name = Annotated[Text, Field(max_length=200)]
SearchedText = Annotated[
    Text, AfterValidator(_searchable), Field(max_length=200, json_schema_extra={"minLength": MIN_SEARCHED_CHARACTERS})
]
Share = Annotated[float, Field(ge=0, le=1)]


class Listing(Contract):
    """What every list takes. `after`: `next` of the page before; every filter stays as it was."""

    limit: int = Field(default=100, ge=1, le=1000)
    after: str | None = Field(default=None, min_length=1, max_length=MAX_CURSOR_CHARACTERS)


class QuestionSort(StrEnum):
    """`position`: as they came in. `hardest` and `easiest`: by pass rate; only questions that have one are listed."""

    POSITION = "position"
    HARDEST = "hardest"
    EASIEST = "easiest"


class QuestionListing(Listing):
    """GET /v1/questions. `pass_rate_from` ≤ pass rate ≤ `pass_rate_to`; `created_from` ≤ created < `created_before`.

    `text` is a piece of the question's text in upper or lower case.
    """

    campaign: UUID
    split: Split | None = None
    state: QuestionState | None = None
    tiny: bool | None = None
    level: int | None = Field(default=None, ge=1, le=5)
    source: Name | None = None
    kind: QuestionKind | None = None
    domain: Name | None = None
    pass_rate_from: Share | None = None
    pass_rate_to: Share | None = None
    created_from: AwareDatetime | None = None
    created_before: AwareDatetime | None = None
    text: SearchedText | None = None
    sort: QuestionSort = QuestionSort.POSITION


class QuestionPage(Contract):
    """Some questions."""

    items: tuple[Question, ...]
    next: str | None


class QuestionEvent(Contract):
    """A question went from one pool to another. `reason`: the purpose of the order that moved it, or why it was taken out."""

    id: int
    question_id: UUID
    from_pool: str
    to_pool: str
    reason: str
    order_id: UUID | None
    at: datetime


class EventListing(Listing):
    """GET /v1/question-events, of a campaign or of a question; newest last."""

    campaign: UUID | None = None
    question: UUID | None = None
    reason: Name | None = None
    to_pool: Name | None = None


class EventPage(Contract):
    """Some events."""

    items: tuple[QuestionEvent, ...]
    next: str | None


class GroupOutcome(StrEnum):
    """What a group's scored responses say together. `mixed` ones are what RL learns from; `unscored`: none was scored."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    MIXED = "mixed"
    UNSCORED = "unscored"


class Consumption(StrEnum):
    """Where a group is on its way to a trainer; `none`: its order is finite, and no batch takes it."""

    NONE = "none"
    WAITING = "waiting"
    LEASED = "leased"
    CONSUMED = "consumed"
    DROPPED = "dropped"


class GroupListing(Listing):
    """GET /v1/groups, of an order, of a question or of a policy, in the order they were stored."""

    limit: int = Field(default=50, ge=1, le=200)
    order: UUID | None = None
    question: UUID | None = None
    policy: UUID | None = None
    outcome: GroupOutcome | None = None
    consumption: Consumption | None = None
    drop_reason: Name | None = None


class GroupPage(Contract):
    """Some groups."""

    items: tuple[Group, ...]
    next: str | None


class OrderListing(Listing):
    """GET /v1/orders, oldest first."""

    campaign: UUID
    state: OrderState | None = None
    purpose: OrderPurpose | None = None


class OrderPage(Contract):
    """Some orders."""

    items: tuple[Order, ...]
    next: str | None


class UnfinishedState(StrEnum):
    """Assignments without a group; those with one are listed as groups. `leased`: the lease is not over yet."""

    OPEN = "open"
    LEASED = "leased"
    DEAD = "dead"
    WITHDRAWN = "withdrawn"


class AssignmentListing(Listing):
    """GET /v1/orders/{id}/assignments. `reason`: why the last attempt failed, or why it is over."""

    state: UnfinishedState = UnfinishedState.DEAD
    reason: Name | None = None


class AssignmentProgress(Contract):
    """An assignment and how far it has come. `available_at`: when it can be claimed; of a leased one, its lease's end."""

    id: UUID
    question_id: UUID
    policy_id: UUID
    policy_version: int
    state: UnfinishedState
    attempts: int
    blameless_failures: int
    worker: str | None
    reason: str | None
    message: str | None
    available_at: datetime | None
    claimed_at: datetime | None
    finished_at: datetime | None


class AssignmentPage(Contract):
    """Some assignments."""

    items: tuple[AssignmentProgress, ...]
    next: str | None


class BatchStatus(StrEnum):
    """`released`: given back, or its lease expired."""

    LEASED = "leased"
    ACKNOWLEDGED = "acknowledged"
    RELEASED = "released"


class BatchListing(Listing):
    """GET /v1/batches, of a run or of an order, oldest first."""

    run: UUID | None = None
    order: UUID | None = None
    state: BatchStatus | None = None


class BatchProgress(Contract):
    """A batch and where it stands. `policy_version` is the trainer's when it was leased."""

    id: UUID
    run_id: UUID
    step: int
    order_id: UUID
    policy_version: int
    state: BatchStatus
    lease_expires_at: datetime
    created_at: datetime
    acknowledged_at: datetime | None


class BatchPage(Contract):
    """Some batches."""

    items: tuple[BatchProgress, ...]
    next: str | None


class SnapshotListing(Listing):
    """GET /v1/snapshots, oldest first."""

    campaign: UUID
    status: SnapshotStatus | None = None
    recipe: SnapshotRecipe | None = None


class SnapshotPage(Contract):
    """Some snapshots."""

    items: tuple[Snapshot, ...]
    next: str | None
