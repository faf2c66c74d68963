"""Stored responses judged again: which group an assignment judges, and every verdict of such a response."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009_reverification"
down_revision = "0008_lists"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reverifications",
        sa.Column("assignment_id", sa.Uuid(), nullable=False),
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["assignment_id"], ["pool.assignments.id"], name=op.f("fk_reverifications_assignment_id")
        ),
        sa.ForeignKeyConstraint(["group_id"], ["pool.groups.id"], name=op.f("fk_reverifications_group_id")),
        sa.PrimaryKeyConstraint("assignment_id", name=op.f("pk_reverifications")),
        schema="pool",
    )
    op.create_table(
        "verdicts",
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("verifier", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("unscored_reason", sa.Text(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("segments", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("unparsed", sa.Text(), nullable=True),
        sa.Column("milliseconds", sa.Double(), nullable=False),
        sa.Column("before_outcome", sa.Text(), nullable=True),
        sa.Column("before_verifier", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["pool.groups.id"], name=op.f("fk_verdicts_group_id")),
        sa.ForeignKeyConstraint(["order_id"], ["pool.orders.id"], name=op.f("fk_verdicts_order_id")),
        sa.PrimaryKeyConstraint("group_id", "position", "order_id", name=op.f("pk_verdicts")),
        schema="pool",
    )
    op.create_index(op.f("ix_verdicts_order_id"), "verdicts", ["order_id"], unique=False, schema="pool")


def downgrade() -> None:
    op.drop_table("verdicts", schema="pool")
    op.drop_table("reverifications", schema="pool")
