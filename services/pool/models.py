"""The tables of the pool, in the schema `pool`.

Invariants held by constraints: one question per content, one group per assignment, one batch per (run, step), a group
in at most one live batch. Token ids, log-probabilities and token ends are packed little-endian bytes, in a table of their own.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    case,
    false,
    func,
    literal_column,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

metadata = MetaData(
    schema="pool",
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    },
)


class Base(DeclarativeBase):
    """Maps Python types to columns: text without a length, times with a zone, bytes as bytea."""

    metadata = metadata
    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy reads it from the class)
        str: Text,
        datetime: DateTime(timezone=True),
        bytes: LargeBinary,
        UUID: Uuid,
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
    }


class CampaignRow(Base):
    """A campaign as the pool knows it: how its questions are compared and routed.

    `near_duplicate_threshold`: 0 compares exact texts only. `near_position`: the questions behind this position have no rows in
    `near_bands` yet; None when all have.
    """

    __tablename__ = "campaigns"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    router: Mapped[dict[str, Any]]
    near_duplicate_threshold: Mapped[float] = mapped_column(server_default="0.8")
    near_position: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class QuestionRow(Base):
    """A question. `text_hash` is of the normalised text alone: what train and eval are compared by.

    `probed_version`: the policy version whose probe decided `state`, `level` and `pass_rate`; an older one never does again.
    """

    __tablename__ = "questions"
    __table_args__ = (
        Index(None, "campaign_id", "text_hash"),
        Index(None, "campaign_id", "split", "state", "position"),
        Index(None, "campaign_id", "position"),
        # What is usual when questions come in is in none of these, and costs the writer nothing.
        Index("ix_questions_tiny", "campaign_id", "position", postgresql_where=sql("tiny")),
        Index("ix_questions_level", "campaign_id", "level", "position", postgresql_where=sql("level IS NOT NULL")),
        Index(
            "ix_questions_pass_rate",
            "campaign_id",
            "pass_rate",
            "position",
            postgresql_where=sql("pass_rate IS NOT NULL"),
        ),
        Index("ix_questions_source", "campaign_id", "source", "position", postgresql_where=sql("source <> ''")),
        Index("ix_questions_kind", "campaign_id", "kind", "position", postgresql_where=sql("kind <> 'math'")),
        Index("ix_questions_domain", "campaign_id", "domain", "position", postgresql_where=sql("domain <> 'text'")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    campaign_id: Mapped[UUID] = mapped_column(ForeignKey("campaigns.id"))
    position: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    text_hash: Mapped[bytes]
    text: Mapped[str]
    answer: Mapped[str]
    solution: Mapped[str | None]
    kind: Mapped[str]
    split: Mapped[str]
    domain: Mapped[str]
    source: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="candidate")
    tiny: Mapped[bool] = mapped_column(server_default=false())
    level: Mapped[int | None]
    pass_rate: Mapped[float | None]
    probed_version: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class QuestionTextRow(Base):
    """The text of a question, indexed by its pieces. Filled in the background (`repository.texts`), in the order of positions."""

    __tablename__ = "question_texts"
    __table_args__ = (
        PrimaryKeyConstraint("campaign_id", "position"),
        Index("ix_question_texts_pieces", "text", postgresql_using="gin", postgresql_ops={"text": "gin_trgm_ops"}),
    )

    campaign_id: Mapped[UUID]
    position: Mapped[int] = mapped_column(BigInteger)
    text: Mapped[str]


# Where near texts meet: `services.pool.service.near.BANDS` rows a question, written with it. No key and no reference: it is
# written by the million, and a row that leads to nothing does no harm.
near_bands = Table(
    "near_bands", metadata, Column("hash", BigInteger, nullable=False), Column("question_id", Uuid, nullable=False)
)
Index(None, near_bands.c.hash)


class QuestionEventRow(Base):
    """Each change of a question's state, with its reason and the order that caused it."""

    __tablename__ = "question_events"
    __table_args__ = (
        Index(None, "question_id", "id"),
        Index(None, "campaign_id", "id"),
        Index(None, "campaign_id", "reason", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    campaign_id: Mapped[UUID]
    question_id: Mapped[UUID] = mapped_column(ForeignKey("questions.id"))
    from_state: Mapped[str]
    to_state: Mapped[str]
    reason: Mapped[str]
    order_id: Mapped[UUID | None]
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class OrderRow(Base):
    """An order. `request_hash` is of the order as first written: a repeated key with other content is a conflict.

    `turns`: how far a standing order has come, in turns of a question of the largest weight. `style`: of an order for verifications.
    """

    __tablename__ = "orders"
    __table_args__ = (
        UniqueConstraint("campaign_id", "key"),
        Index("ix_orders_open", "created_at", postgresql_where=sql("state = 'open'")),
        Index(None, "campaign_id", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    campaign_id: Mapped[UUID] = mapped_column(ForeignKey("campaigns.id"))
    key: Mapped[str]
    request_hash: Mapped[str]
    purpose: Mapped[str]
    policy_id: Mapped[UUID]
    policy_version: Mapped[int]
    k: Mapped[int]
    sampling: Mapped[dict[str, Any]]
    selection: Mapped[dict[str, Any]]
    watermark_groups: Mapped[int | None]
    weights: Mapped[dict[str, Any]] = mapped_column(server_default=sql("'{}'::jsonb"))
    on_demand: Mapped[bool] = mapped_column(server_default=sql("false"))
    priority: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    turns: Mapped[float] = mapped_column(server_default="0")
    style: Mapped[str | None]
    max_attempts: Mapped[int]
    deadline_s: Mapped[float]
    state: Mapped[str] = mapped_column(server_default="open")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class AssignmentRow(Base):
    """One question of one order. States: open, leased, done, dead (with `reason`), withdrawn (its order was closed).

    `available_at`: from when it can be claimed: an open one's time or a leased one's expiry; None when it is over.
    `priority`: its order's. `blameless_failures`: those that were no attempts. Ids rise with time, so that neighbours in the
    queue are neighbours in the index.
    """

    __tablename__ = "assignments"
    __table_args__ = (
        Index(
            "ix_assignments_claimable",
            "priority",
            "available_at",
            "sequence",
            postgresql_where=sql("available_at IS NOT NULL"),
        ),
        Index("ix_assignments_unfinished", "order_id", postgresql_where=sql("available_at IS NOT NULL")),
        Index(
            "ix_assignments_given_up",
            "order_id",
            "state",
            "sequence",
            postgresql_where=sql("state IN ('dead', 'withdrawn')"),
        ),
        Index(None, "order_id", "sequence"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    sequence: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    priority: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"))
    question_id: Mapped[UUID] = mapped_column(ForeignKey("questions.id"))
    policy_id: Mapped[UUID]
    policy_version: Mapped[int]
    state: Mapped[str] = mapped_column(server_default="open")
    available_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    attempts: Mapped[int] = mapped_column(server_default="0")
    blameless_failures: Mapped[int] = mapped_column(server_default="0")
    lease_token: Mapped[UUID | None]
    worker: Mapped[str | None]
    reason: Mapped[str | None]
    message: Mapped[str | None]
    claimed_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class RolloutCountRow(Base):
    """How often a standing order has taken a question, and where on the order's line of turns it last did."""

    __tablename__ = "rollout_counts"
    __table_args__ = (PrimaryKeyConstraint("order_id", "question_id"),)

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"))
    question_id: Mapped[UUID] = mapped_column(ForeignKey("questions.id"))
    times: Mapped[int]
    turn: Mapped[float] = mapped_column(server_default="0")


class RolloutQueueRow(Base):
    """The questions that a standing order takes next, in this order; drawn some thousand at a time."""

    __tablename__ = "rollout_queue"
    __table_args__ = (PrimaryKeyConstraint("order_id", "position"),)

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"))
    position: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    question_id: Mapped[UUID] = mapped_column(ForeignKey("questions.id"))


class GroupRow(Base):
    """A group. `consumption`: none (finite order), waiting, leased, consumed, or dropped with `drop_reason`."""

    __tablename__ = "groups"
    __table_args__ = (
        UniqueConstraint("assignment_id"),
        Index(None, "order_id", "sequence"),
        Index(None, "question_id", "sequence"),
        Index("ix_groups_waiting", "order_id", "sequence", postgresql_where=sql("consumption = 'waiting'")),
        Index("ix_groups_leased", "order_id", "sequence", postgresql_where=sql("consumption = 'leased'")),
        Index(
            "ix_groups_dropped", "order_id", "drop_reason", "sequence", postgresql_where=sql("drop_reason IS NOT NULL")
        ),
        Index(None, "policy_id", "sequence"),
        Index(
            "ix_groups_waiting_version", "order_id", "policy_version", postgresql_where=sql("consumption = 'waiting'")
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    assignment_id: Mapped[UUID] = mapped_column(ForeignKey("assignments.id"))
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"))
    question_id: Mapped[UUID] = mapped_column(ForeignKey("questions.id"))
    policy_id: Mapped[UUID]
    policy_version: Mapped[int]
    scored: Mapped[int]
    correct: Mapped[int]
    unscored: Mapped[int]
    tokens: Mapped[int]
    late: Mapped[bool]
    consumption: Mapped[str]
    drop_reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


# What the scored responses of a group say together.
GROUP_OUTCOME = case(
    (GroupRow.scored == 0, literal_column("'unscored'")),
    (GroupRow.correct == 0, literal_column("'incorrect'")),
    (GroupRow.correct == GroupRow.scored, literal_column("'correct'")),
    else_=literal_column("'mixed'"),
)


class ResponseRow(Base):
    """One response with its verdict; `segments` is the JSON of `ScoredSegment`s, `tokens` how many tokens it has."""

    __tablename__ = "responses"
    __table_args__ = (PrimaryKeyConstraint("group_id", "position"),)

    group_id: Mapped[UUID] = mapped_column(ForeignKey("groups.id"))
    position: Mapped[int]
    text: Mapped[str]
    finish_reason: Mapped[str]
    tokens: Mapped[int] = mapped_column(server_default="0")
    outcome: Mapped[str]
    unscored_reason: Mapped[str | None]
    answer: Mapped[str | None]
    segments: Mapped[list[Any]]
    unparsed: Mapped[str | None]
    verifier: Mapped[str]
    milliseconds: Mapped[float]


class ReverificationRow(Base):
    """Which group an assignment judges again, or verifies the answers of."""

    __tablename__ = "reverifications"

    assignment_id: Mapped[UUID] = mapped_column(ForeignKey("assignments.id"), primary_key=True)
    group_id: Mapped[UUID] = mapped_column(ForeignKey("groups.id"))


class VerdictRow(Base):
    """A verdict in the history of a response that was judged again: by the order that sampled it, then by each re-verification.

    `before_outcome`, `before_verifier`: what counted until then; None for the first one. What counts now is in `responses`.
    """

    __tablename__ = "verdicts"
    __table_args__ = (PrimaryKeyConstraint("group_id", "position", "order_id"), Index(None, "order_id"))

    group_id: Mapped[UUID] = mapped_column(ForeignKey("groups.id"))
    position: Mapped[int]
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"))
    verifier: Mapped[str]
    outcome: Mapped[str]
    unscored_reason: Mapped[str | None]
    answer: Mapped[str | None]
    segments: Mapped[list[Any]]
    unparsed: Mapped[str | None]
    milliseconds: Mapped[float]
    before_outcome: Mapped[str | None]
    before_verifier: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class GroupTokensRow(Base):
    """The token arrays of a group: those of its responses one after the other, in the order of their positions.

    `created_at` is the group's. One partition a day (`services.pool.repository.partitions`), so that old ones are dropped whole; the
    big columns are stored without compression. No foreign key: dropping a partition locks no other table.
    """

    __tablename__ = "group_tokens"
    __table_args__ = (
        PrimaryKeyConstraint("group_id", "created_at"),
        {"postgresql_partition_by": "RANGE (created_at)"},
    )

    group_id: Mapped[UUID]
    created_at: Mapped[datetime]
    prompt_token_ids: Mapped[bytes]
    token_ids: Mapped[bytes]
    logprobs: Mapped[bytes]
    token_ends: Mapped[bytes]


class PassRateRow(Base):
    """Question × policy, by the order that measured it. `mean` and `variance` are of the 0/1 outcome over `n` scored responses."""

    __tablename__ = "pass_rates"
    __table_args__ = (PrimaryKeyConstraint("question_id", "policy_id", "order_id"), Index(None, "order_id"))

    question_id: Mapped[UUID] = mapped_column(ForeignKey("questions.id"))
    policy_id: Mapped[UUID]
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"))
    policy_version: Mapped[int]
    n: Mapped[int]
    correct: Mapped[int]
    mean: Mapped[float]
    variance: Mapped[float]
    level: Mapped[int]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CounterRow(Base):
    """A change of a named counter of a campaign or an order (`scope`). Rows are only added; a fold sums old ones into one."""

    __tablename__ = "counters"
    __table_args__ = (Index(None, "scope", "name"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    scope: Mapped[UUID]
    name: Mapped[str]
    value: Mapped[int] = mapped_column(BigInteger)


class SnapshotRow(Base):
    """A snapshot and the lease of its builder."""

    __tablename__ = "snapshots"
    __table_args__ = (
        UniqueConstraint("campaign_id", "key"),
        Index("ix_snapshots_building", "created_at", postgresql_where=sql("status = 'building'")),
        Index(None, "campaign_id", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    campaign_id: Mapped[UUID] = mapped_column(ForeignKey("campaigns.id"))
    key: Mapped[str]
    request: Mapped[dict[str, Any]]
    request_hash: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="building")
    error: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    lease_token: Mapped[UUID | None]
    lease_expires_at: Mapped[datetime | None]
    uri: Mapped[str] = mapped_column(server_default="")
    content_hash: Mapped[str] = mapped_column(server_default="")
    rows: Mapped[int] = mapped_column(server_default="0")
    rounds: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    dropped: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SnapshotQuestionRow(Base):
    """A question of which a ready snapshot has rows: written once, with what makes the snapshot ready."""

    __tablename__ = "snapshot_questions"
    __table_args__ = (PrimaryKeyConstraint("snapshot_id", "question_id"), Index(None, "question_id"))

    snapshot_id: Mapped[UUID] = mapped_column(ForeignKey("snapshots.id"))
    question_id: Mapped[UUID] = mapped_column(ForeignKey("questions.id"))


class RunFenceRow(Base):
    """The highest fencing token seen of a run; its row lock also makes the run's batch calls one after the other."""

    __tablename__ = "run_fences"

    run_id: Mapped[UUID] = mapped_column(primary_key=True)
    fence: Mapped[int] = mapped_column(BigInteger)


class BatchRow(Base):
    """Groups leased to one step of one run. States: leased, acknowledged, released (given back or expired)."""

    __tablename__ = "batches"
    __table_args__ = (
        UniqueConstraint("run_id", "step"),
        Index("ix_batches_leased", "order_id", "lease_expires_at", postgresql_where=sql("state = 'leased'")),
        Index(None, "order_id", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    run_id: Mapped[UUID]
    step: Mapped[int]
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"))
    policy_version: Mapped[int]
    state: Mapped[str]
    lease_expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    acknowledged_at: Mapped[datetime | None]


class BatchGroupRow(Base):
    """A group in a live batch. The unique group is what makes a group be handed out once; giving it back deletes the row."""

    __tablename__ = "batch_groups"
    __table_args__ = (PrimaryKeyConstraint("batch_id", "group_id"), UniqueConstraint("group_id"))

    batch_id: Mapped[UUID] = mapped_column(ForeignKey("batches.id"))
    group_id: Mapped[UUID] = mapped_column(ForeignKey("groups.id"))
    position: Mapped[int]
    staleness: Mapped[int]


class IdempotencyKeyRow(Base):
    """The answer to a write that came with an `Idempotency-Key`; `request_hash` is of all of that request."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index(None, "created_at"),)

    key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[bytes]
    status: Mapped[int]
    content_type: Mapped[str]
    body: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class IdempotencyClaimRow(Base):
    """The one request that is carried out under an `Idempotency-Key`, or was: `until` may be past."""

    __tablename__ = "idempotency_claims"
    __table_args__ = {"prefixes": ["UNLOGGED"]}  # noqa: RUF012 (SQLAlchemy reads it from the class)

    key: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[UUID]
    until: Mapped[datetime]
