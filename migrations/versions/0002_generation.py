"""The registry of policies."""

import sqlalchemy as sa
from alembic import op

revision = "0002_generation"
down_revision = "0001_pool"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policies",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("base_policy_id", sa.Uuid(), sa.ForeignKey("generation.policies.id"), nullable=True),
        sa.Column("parent_policy_id", sa.Uuid(), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("api_key_env", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.UniqueConstraint("campaign_id", "name", name="policies_campaign_name_key"),
        schema="generation",
    )
    op.create_index("policies_name_idx", "policies", ["name"], schema="generation")


def downgrade() -> None:
    op.drop_table("policies", schema="generation")
