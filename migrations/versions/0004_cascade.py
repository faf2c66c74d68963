"""Campaigns, their stages, and the counts after each probe."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004_cascade"
down_revision = "0003_training"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "campaigns",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False, unique=True),
        sa.Column("recipe", JSONB(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        schema="cascade",
    )
    op.create_table(
        "stages",
        sa.Column("campaign_id", sa.Uuid(), sa.ForeignKey("cascade.campaigns.id"), primary_key=True),
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("total", sa.Integer(), server_default="0", nullable=False),
        sa.Column("unit", sa.Text(), server_default="", nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("request", JSONB(), nullable=True),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("snapshot_id", sa.Uuid(), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("policy_id", sa.Uuid(), nullable=True),
        sa.Column("policy_version", sa.Integer(), nullable=True),
        sa.Column("tokens_trained", sa.BigInteger(), nullable=True),
        sa.Column("tokens_sampled", sa.BigInteger(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        schema="cascade",
    )
    op.create_table(
        "level_counts",
        sa.Column("campaign_id", sa.Uuid(), sa.ForeignKey("cascade.campaigns.id"), primary_key=True),
        sa.Column("probe", sa.Text(), primary_key=True),
        sa.Column("levels", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("states", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        schema="cascade",
    )


def downgrade() -> None:
    for table in ("level_counts", "stages", "campaigns"):
        op.drop_table(table, schema="cascade")
