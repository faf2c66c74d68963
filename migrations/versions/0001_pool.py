"""The pool: questions, orders, assignments, groups, snapshots, batches and their counters."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001_pool"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "campaigns",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("router", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaigns")),
        schema="pool",
    )
    op.create_table(
        "counters",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("scope", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_counters")),
        schema="pool",
    )
    op.create_index(op.f("ix_counters_scope_name"), "counters", ["scope", "name"], unique=False, schema="pool")
    op.create_table(
        "run_fences",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_run_fences")),
        schema="pool",
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("policy_id", sa.Uuid(), nullable=False),
        sa.Column("policy_version", sa.Integer(), nullable=False),
        sa.Column("k", sa.Integer(), nullable=False),
        sa.Column("sampling", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("selection", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("watermark_groups", sa.Integer(), nullable=True),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("deadline_s", sa.Double(), nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["campaign_id"], ["pool.campaigns.id"], name=op.f("fk_orders_campaign_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        sa.UniqueConstraint("campaign_id", "key", name=op.f("uq_orders_campaign_id_key")),
        schema="pool",
    )
    op.create_index(
        "ix_orders_open",
        "orders",
        ["created_at"],
        unique=False,
        schema="pool",
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "questions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("text_hash", sa.LargeBinary(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("solution", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="candidate", nullable=False),
        sa.Column("tiny", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("level", sa.Integer(), nullable=True),
        sa.Column("pass_rate", sa.Double(), nullable=True),
        sa.Column("probed_version", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["campaign_id"], ["pool.campaigns.id"], name=op.f("fk_questions_campaign_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_questions")),
        schema="pool",
    )
    op.create_index(
        op.f("ix_questions_campaign_id_position"), "questions", ["campaign_id", "position"], unique=False, schema="pool"
    )
    op.create_index(
        op.f("ix_questions_campaign_id_split_state_position"),
        "questions",
        ["campaign_id", "split", "state", "position"],
        unique=False,
        schema="pool",
    )
    op.create_index(
        op.f("ix_questions_campaign_id_text_hash"),
        "questions",
        ["campaign_id", "text_hash"],
        unique=False,
        schema="pool",
    )
    op.create_table(
        "snapshots",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="building", nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("uri", sa.Text(), server_default="", nullable=False),
        sa.Column("content_hash", sa.Text(), server_default="", nullable=False),
        sa.Column("rows", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rounds", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("dropped", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["campaign_id"], ["pool.campaigns.id"], name=op.f("fk_snapshots_campaign_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshots")),
        sa.UniqueConstraint("campaign_id", "key", name=op.f("uq_snapshots_campaign_id_key")),
        schema="pool",
    )
    op.create_index(
        "ix_snapshots_building",
        "snapshots",
        ["created_at"],
        unique=False,
        schema="pool",
        postgresql_where=sa.text("status = 'building'"),
    )
    op.create_table(
        "assignments",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("sequence", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("question_id", sa.Uuid(), nullable=False),
        sa.Column("policy_id", sa.Uuid(), nullable=False),
        sa.Column("policy_version", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("blameless_failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["order_id"], ["pool.orders.id"], name=op.f("fk_assignments_order_id")),
        sa.ForeignKeyConstraint(["question_id"], ["pool.questions.id"], name=op.f("fk_assignments_question_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assignments")),
        schema="pool",
    )
    op.create_index(
        "ix_assignments_available",
        "assignments",
        ["available_at", "sequence"],
        unique=False,
        schema="pool",
        postgresql_where=sa.text("available_at IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_assignments_order_id_sequence"), "assignments", ["order_id", "sequence"], unique=False, schema="pool"
    )
    op.create_index(
        "ix_assignments_unfinished",
        "assignments",
        ["order_id"],
        unique=False,
        schema="pool",
        postgresql_where=sa.text("available_at IS NOT NULL"),
    )
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("policy_version", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["order_id"], ["pool.orders.id"], name=op.f("fk_batches_order_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
        sa.UniqueConstraint("run_id", "step", name=op.f("uq_batches_run_id_step")),
        schema="pool",
    )
    op.create_index(
        "ix_batches_leased",
        "batches",
        ["order_id", "lease_expires_at"],
        unique=False,
        schema="pool",
        postgresql_where=sa.text("state = 'leased'"),
    )
    op.create_table(
        "pass_rates",
        sa.Column("question_id", sa.Uuid(), nullable=False),
        sa.Column("policy_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("policy_version", sa.Integer(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("correct", sa.Integer(), nullable=False),
        sa.Column("mean", sa.Double(), nullable=False),
        sa.Column("variance", sa.Double(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["pool.orders.id"], name=op.f("fk_pass_rates_order_id")),
        sa.ForeignKeyConstraint(["question_id"], ["pool.questions.id"], name=op.f("fk_pass_rates_question_id")),
        sa.PrimaryKeyConstraint("question_id", "policy_id", "order_id", name=op.f("pk_pass_rates")),
        schema="pool",
    )
    op.create_index(op.f("ix_pass_rates_order_id"), "pass_rates", ["order_id"], unique=False, schema="pool")
    op.create_table(
        "question_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("question_id", sa.Uuid(), nullable=False),
        sa.Column("from_state", sa.Text(), nullable=False),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["question_id"], ["pool.questions.id"], name=op.f("fk_question_events_question_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_question_events")),
        schema="pool",
    )
    op.create_index(
        op.f("ix_question_events_question_id_id"), "question_events", ["question_id", "id"], unique=False, schema="pool"
    )
    op.create_table(
        "rollout_counts",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("question_id", sa.Uuid(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["pool.orders.id"], name=op.f("fk_rollout_counts_order_id")),
        sa.ForeignKeyConstraint(["question_id"], ["pool.questions.id"], name=op.f("fk_rollout_counts_question_id")),
        sa.PrimaryKeyConstraint("order_id", "question_id", name=op.f("pk_rollout_counts")),
        schema="pool",
    )
    op.create_table(
        "groups",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("assignment_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("question_id", sa.Uuid(), nullable=False),
        sa.Column("policy_id", sa.Uuid(), nullable=False),
        sa.Column("policy_version", sa.Integer(), nullable=False),
        sa.Column("prompt_token_ids", sa.LargeBinary(), nullable=False),
        sa.Column("scored", sa.Integer(), nullable=False),
        sa.Column("correct", sa.Integer(), nullable=False),
        sa.Column("unscored", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("consumption", sa.Text(), nullable=False),
        sa.Column("drop_reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["assignment_id"], ["pool.assignments.id"], name=op.f("fk_groups_assignment_id")),
        sa.ForeignKeyConstraint(["order_id"], ["pool.orders.id"], name=op.f("fk_groups_order_id")),
        sa.ForeignKeyConstraint(["question_id"], ["pool.questions.id"], name=op.f("fk_groups_question_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_groups")),
        sa.UniqueConstraint("assignment_id", name=op.f("uq_groups_assignment_id")),
        schema="pool",
    )
    op.create_index(
        op.f("ix_groups_order_id_sequence"), "groups", ["order_id", "sequence"], unique=False, schema="pool"
    )
    op.create_index(
        op.f("ix_groups_question_id_sequence"), "groups", ["question_id", "sequence"], unique=False, schema="pool"
    )
    op.create_index(
        "ix_groups_waiting",
        "groups",
        ["order_id", "sequence"],
        unique=False,
        schema="pool",
        postgresql_where=sa.text("consumption = 'waiting'"),
    )
    op.create_table(
        "batch_groups",
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("staleness", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["pool.batches.id"], name=op.f("fk_batch_groups_batch_id")),
        sa.ForeignKeyConstraint(["group_id"], ["pool.groups.id"], name=op.f("fk_batch_groups_group_id")),
        sa.PrimaryKeyConstraint("batch_id", "group_id", name=op.f("pk_batch_groups")),
        sa.UniqueConstraint("group_id", name=op.f("uq_batch_groups_group_id")),
        schema="pool",
    )
    op.create_table(
        "responses",
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("finish_reason", sa.Text(), nullable=False),
        sa.Column("token_ids", sa.LargeBinary(), nullable=False),
        sa.Column("logprobs", sa.LargeBinary(), nullable=False),
        sa.Column("token_ends", sa.LargeBinary(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("unscored_reason", sa.Text(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("segments", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("unparsed", sa.Text(), nullable=True),
        sa.Column("verifier", sa.Text(), nullable=False),
        sa.Column("milliseconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["pool.groups.id"], name=op.f("fk_responses_group_id")),
        sa.PrimaryKeyConstraint("group_id", "position", name=op.f("pk_responses")),
        schema="pool",
    )


def downgrade() -> None:
    for table in (
        "responses",
        "batch_groups",
        "groups",
        "rollout_counts",
        "question_events",
        "pass_rates",
        "batches",
        "assignments",
        "snapshots",
        "questions",
        "orders",
        "run_fences",
        "counters",
        "campaigns",
    ):
        op.drop_table(table, schema="pool")
