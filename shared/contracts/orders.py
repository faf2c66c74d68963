"""Orders, assignments and groups: the pool hands work to sampling and takes finished groups back."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import Field, model_validator

from shared.contracts.base import Contract, Items, PackedFloat32, PackedInt32
from shared.contracts.generation import FinishReason, SamplingParameters
from shared.contracts.questions import Question, QuestionState, Split
from shared.contracts.verdicts import Verdict
from shared.contracts.weights import QuestionWeights

MAX_CLAIM = 1024


class OrderPurpose(StrEnum):
    """What an order is for; the pool routes questions on `probe` groups only.

    `reverify` samples nothing: it judges stored responses again (`ReverifyIn`). `verify` samples verifications of stored answers
    (`VerifyIn`), which say nothing about how hard a question is.
    """

    TEACH = "teach"
    PROBE = "probe"
    VERIFY = "verify"
    ROLLOUT = "rollout"
    EVAL = "eval"
    REVERIFY = "reverify"


class ReprobeSelection(Contract):
    """Ask those again about which a probe by `policy_version` tells most (`services/pool/reprobe.py`), best first.

    `minimum_staleness`: only what was measured at least so many versions ago, or never.
    """

    policy_version: int = Field(ge=0)
    minimum_staleness: int = Field(default=1, ge=0)


class QuestionSelection(Contract):
    """Which questions of the campaign; empty `states` means every usable state.

    `split` None means both. `fraction` is a seeded random share of the train questions; eval questions come whole.
    `reprobe` chooses the best `limit` train questions instead of a random share.
    """

    split: Split | None = Split.TRAIN
    states: Items[QuestionState] = ()
    with_solution: bool = False
    fraction: float = Field(default=1.0, gt=0.0, le=1.0)
    limit: int | None = Field(default=None, ge=1)
    seed: int = 0
    reprobe: ReprobeSelection | None = None

    @model_validator(mode="after")
    def _has_a_budget(self) -> "QuestionSelection":
        if self.reprobe is not None and (self.limit is None or self.split is not Split.TRAIN or self.fraction < 1):
            raise ValueError("'reprobe' is of split 'train' and needs 'limit', its budget, in place of 'fraction'")
        return self


class OrderIn(Contract):
    """Written by the cascade only. Idempotent by (campaign_id, key).

    A finite order makes its assignments at once. A standing order (`watermark_groups` set) makes new ones whenever
    fewer than that many of its groups are waiting or being sampled, and is never complete until closed; `weights` says which
    questions it takes more often, and with `on_demand` it makes them only while a trainer waits for a batch. Of all that can be
    claimed, higher `priority` goes first, then what has been available longest: a lower one waits as long as there is work of a
    higher one. `deadline_s`: what sampling one group may take; a worker holds as many questions at once as the engine finishes
    well within it.
    """

    campaign_id: UUID
    key: str = Field(min_length=1, max_length=100)
    purpose: OrderPurpose
    policy_id: UUID
    policy_version: int = Field(ge=0)
    k: int = Field(ge=1, le=256)
    sampling: SamplingParameters
    selection: QuestionSelection = QuestionSelection()
    watermark_groups: int | None = Field(default=None, ge=1)
    weights: QuestionWeights = QuestionWeights()
    on_demand: bool = False
    priority: int = Field(default=0, ge=-1000, le=1000)
    max_attempts: int = Field(default=5, ge=1, le=100)
    deadline_s: float = Field(default=600.0, gt=0, le=3600)


class OrderState(StrEnum):
    """`complete`: every assignment is done or dead. `closed`: a standing order that makes no more."""

    OPEN = "open"
    COMPLETE = "complete"
    CLOSED = "closed"


class Order(OrderIn):
    """An order with its progress. For a standing order `total` is the number of assignments made so far."""

    id: UUID
    state: OrderState
    total: int
    done: int
    dead: int
    created_at: datetime


class OrderPolicy(Contract):
    """PUT /v1/orders/{id}/policy: from now on a standing order's new assignments use this policy."""

    policy_id: UUID
    policy_version: int = Field(ge=0)


class ClaimRequest(Contract):
    """A sampling worker asks for up to `limit` assignments, leased for `lease_s` seconds."""

    worker: str = Field(min_length=1, max_length=200)
    limit: int = Field(default=16, ge=1, le=MAX_CLAIM)
    lease_s: float = Field(default=180.0, gt=0, le=3600)


class Assignment(Contract):
    """One question of one order, leased to one worker until `lease_expires_at`; `lease_token` fences late results."""

    id: UUID
    order_id: UUID
    purpose: OrderPurpose
    policy_id: UUID
    policy_version: int
    k: int
    sampling: SamplingParameters
    deadline_s: float
    question: Question
    lease_token: UUID
    lease_expires_at: datetime
    attempt: int


class ClaimResult(Contract):
    """Empty when there is nothing to do; `open_orders` says whether it is worth to ask again soon."""

    assignments: tuple[Assignment, ...]
    open_orders: int


class LeaseRef(Contract):
    """One held lease."""

    assignment_id: UUID
    lease_token: UUID


class LeaseExtension(Contract):
    """POST /v1/assignments/heartbeat: the leases still worked on. The answer lists those that are still held."""

    leases: Items[LeaseRef]
    lease_s: float = Field(default=180.0, gt=0, le=3600)


class AssignmentFailure(Contract):
    """POST /v1/assignments/fail: give a lease back with a named reason; after `max_attempts` the assignment is dead.

    `counts_as_attempt` False: the failure is not the question's (a service is down), so it uses up no attempt; after 50 of
    these the assignment is dead as well.
    """

    assignment_id: UUID
    lease_token: UUID
    reason: str = Field(min_length=1, max_length=100)
    message: str = Field(default="", max_length=2000)
    counts_as_attempt: bool = True


class ResponseIn(Contract):
    """One verified response. Packed arrays have one entry per token; `verdict.segments` carries spans and rewards."""

    text: str
    finish_reason: FinishReason
    token_ids: PackedInt32 = ""
    logprobs: PackedFloat32 = ""
    token_ends: PackedInt32 = ""
    verdict: Verdict


class GroupIn(Contract):
    """The K responses of one question under one policy version. Idempotent by assignment."""

    assignment_id: UUID
    lease_token: UUID
    policy_id: UUID
    prompt_token_ids: PackedInt32 = ""
    responses: Items[ResponseIn] = Field(min_length=1, max_length=256)


class GroupStatus(StrEnum):
    """`late`: the lease had expired but the group was still missing, so it was taken."""

    STORED = "stored"
    LATE = "late"
    DUPLICATE = "duplicate"
    REFUSED = "refused"


class GroupReceipt(Contract):
    """What became of one handed-in group."""

    assignment_id: UUID
    status: GroupStatus
    group_id: UUID | None = None
    message: str = ""


class GroupBatch(Contract):
    """POST /v1/groups, made by sampling workers."""

    groups: Items[GroupIn] = Field(min_length=1, max_length=1024)


class GroupBatchResult(Contract):
    """One receipt per group, in order."""

    receipts: tuple[GroupReceipt, ...]


class Group(Contract):
    """A stored group as trainers and readers see it.

    `tokens_expired`: the pool keeps token-level data for a time only; that of this group is gone, and its token arrays are
    empty. Text and verdicts stay.
    """

    id: UUID
    order_id: UUID
    question: Question
    policy_id: UUID
    policy_version: int
    prompt_token_ids: PackedInt32 = ""
    responses: tuple[ResponseIn, ...]
    created_at: datetime
    tokens_expired: bool = False
