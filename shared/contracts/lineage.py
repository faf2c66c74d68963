"""Lineage both ways, and retraction: the pool knows groups, snapshots and batches; the cascade adds runs and policies."""

from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

from pydantic import Field, model_validator

from shared.contracts.base import Contract, Items, Text
from shared.contracts.difficulty import PoolMove
from shared.contracts.orders import OrderPurpose
from shared.contracts.policies import PolicyKind
from shared.contracts.questions import QuestionState
from shared.contracts.reverification import VerdictRecord
from shared.contracts.runs import RunMethod, RunState
from shared.contracts.snapshots import SnapshotRecipe, SnapshotStatus
from shared.contracts.verdicts import UnscoredReason, VerdictOutcome

MAX_RETRACTED_AT_ONCE = 1000


class ResponseVerdict(Contract):
    """The verdict that counts for the response at `position` of a group."""

    position: int
    outcome: VerdictOutcome
    unscored_reason: UnscoredReason | None
    answer: str | None
    verifier: str


class BatchUse(Contract):
    """The batch that holds a group: leased to a step of a run, or acknowledged with it."""

    batch_id: UUID
    run_id: UUID
    step: int
    state: Literal["leased", "acknowledged"]
    staleness: int
    acknowledged_at: datetime | None


class GroupLineage(Contract):
    """A group of a question: who sampled it for what, how it was judged, and what trained on it.

    `history`: every verdict of responses that were judged again, by position and oldest first.
    `consumption`: none (a finite order's), waiting, leased, consumed, or dropped with `drop_reason`.
    """

    id: UUID
    order_id: UUID
    purpose: OrderPurpose
    policy_id: UUID
    policy_version: int
    consumption: str
    drop_reason: str | None
    verdicts: tuple[ResponseVerdict, ...]
    history: tuple[VerdictRecord, ...]
    batch: BatchUse | None
    created_at: datetime


class SnapshotUse(Contract):
    """A snapshot that has rows of a question."""

    snapshot_id: UUID
    key: str
    recipe: SnapshotRecipe
    status: SnapshotStatus


class RunUse(Contract):
    """A run whose batches hold groups of a question: how many, how many of them acknowledged, and the first of their steps."""

    run_id: UUID
    first_step: int
    batches: int
    acknowledged: int


class QuestionUses(Contract):
    """What the pool knows of a question's lineage; made by the pool, read by the cascade.

    `groups` is a page (`next`: the cursor of the groups behind it); `moves`, `snapshots` and `runs` are of all its groups.
    """

    question_id: UUID
    campaign_id: UUID
    state: QuestionState
    groups: tuple[GroupLineage, ...]
    next: str | None
    moves: tuple[PoolMove, ...]
    snapshots: tuple[SnapshotUse, ...]
    runs: tuple[RunUse, ...]


class RunLineage(Contract):
    """A run in a lineage. `snapshot_id` for SFT, `order_id` for RL."""

    run_id: UUID
    key: str
    method: RunMethod
    state: RunState
    start_policy_id: UUID
    snapshot_id: UUID | None
    order_id: UUID | None


class TouchedPolicy(Contract):
    """A policy that a question may have shaped: by its own run, or (`inherited`) by what one of its ancestors was trained on."""

    policy_id: UUID
    name: str
    version: int
    run_id: UUID | None
    step: int | None
    inherited: bool


class QuestionLineage(QuestionUses):
    """GET /v1/questions/{id}/lineage: the pool's part, the runs that trained on the question and the policies they made.

    An RL policy published at step s is touched by batches of earlier steps only; an SFT policy by its whole snapshot.
    """

    trained_by: tuple[RunLineage, ...]
    policies: tuple[TouchedPolicy, ...]


class RunSteps(Contract):
    """The batches of a run before a step; all of them with `before_step` None."""

    run_id: UUID
    before_step: int | None = None


class TrainedOnRequest(Contract):
    """POST /v1/lineage/questions: the questions of these snapshots and of the batches of these runs, by id behind `after`."""

    snapshots: Items[UUID] = Field(default=(), max_length=10_000)
    runs: Items[RunSteps] = Field(default=(), max_length=10_000)
    after: UUID | None = None
    limit: int = Field(default=100, ge=1, le=1000)


class TrainedOnQuestion(Contract):
    """A question that a policy may have been shaped by, and where it stands now."""

    question_id: UUID
    state: QuestionState


class TrainedOn(Contract):
    """Some of them; `next` is the cursor of those behind them."""

    items: tuple[TrainedOnQuestion, ...]
    next: str | None


class PolicyAncestor(Contract):
    """A policy in a line of descent, and the run that made it (None: nothing of ours trained it)."""

    policy_id: UUID
    name: str
    kind: PolicyKind
    version: int
    step: int | None
    run: RunLineage | None


class PolicyLineage(Contract):
    """GET /v1/policies/{id}/lineage: the policy, its ancestors (nearest first), and the questions that shaped any of them."""

    policy: PolicyAncestor
    ancestors: tuple[PolicyAncestor, ...]
    questions: tuple[TrainedOnQuestion, ...]
    next: str | None


class RetractIn(Contract):
    """POST /v1/questions/{id}/retract: why the question is left out from now on."""

    reason: Text = Field(min_length=1, max_length=1000, pattern=r"\S")


class RetractManyIn(RetractIn):
    """POST /v1/questions/retract: those of these `ids`, or up to `limit` of a campaign's `source` that are not retracted yet."""

    ids: Items[UUID] = Field(default=(), max_length=MAX_RETRACTED_AT_ONCE)
    campaign: UUID | None = None
    source: Text | None = None
    limit: int = Field(default=MAX_RETRACTED_AT_ONCE, ge=1, le=MAX_RETRACTED_AT_ONCE)

    @model_validator(mode="after")
    def _one_filter(self) -> "RetractManyIn":
        if bool(self.ids) == (self.source is not None):
            raise ValueError("name the questions either by 'ids' or by 'campaign' and 'source'")
        if self.source is not None and self.campaign is None:
            raise ValueError("'source' needs the 'campaign' it is of")
        return self


class RetractionStatus(StrEnum):
    """What became of one question; `already`: it was retracted before, and its first reason stays."""

    RETRACTED = "retracted"
    ALREADY = "already"
    NOT_FOUND = "not_found"


class RetractedUses(Contract):
    """One question that was to be retracted, as the pool knows it; `dropped_groups` were waiting for a trainer."""

    question_id: UUID
    status: RetractionStatus
    campaign_id: UUID | None = None
    from_state: QuestionState | None = None
    dropped_groups: int = 0
    snapshots: tuple[UUID, ...] = ()
    runs: tuple[RunUse, ...] = ()


class RetractedUsesList(Contract):
    """The pool's answer to `RetractManyIn`, in the order of the ids. `more`: some of the source are not retracted yet."""

    items: tuple[RetractedUses, ...]
    more: bool


class Retraction(Contract):
    """One retracted question: what it was, what was taken back, and which runs and policies it has touched already."""

    question_id: UUID
    status: RetractionStatus
    from_state: QuestionState | None = None
    dropped_groups: int = 0
    runs: tuple[UUID, ...] = ()
    policies: tuple[TouchedPolicy, ...] = ()


class Retractions(Contract):
    """One answer a question, in the order of the ids. `more`: repeat the request, some of the source are left."""

    items: tuple[Retraction, ...]
    more: bool
