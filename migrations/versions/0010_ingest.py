"""Ingest: near texts are found by their bands, and a repeated request by its key."""

import sqlalchemy as sa
from alembic import op

revision = "0010_ingest"
down_revision = "0009_reverification"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "campaigns",
        sa.Column("near_duplicate_threshold", sa.Double(), server_default="0.8", nullable=False),
        schema="pool",
    )
    op.add_column("campaigns", sa.Column("near_position", sa.BigInteger(), nullable=True), schema="pool")
    # Questions that are there have no bands; the next submission to their campaign adds them.
    op.execute("UPDATE pool.campaigns SET near_position = 0")
    op.create_table(
        "near_bands",
        sa.Column("hash", sa.BigInteger(), nullable=False),
        sa.Column("question_id", sa.Uuid(), nullable=False),
        schema="pool",
    )
    op.create_index(op.f("ix_near_bands_hash"), "near_bands", ["hash"], unique=False, schema="pool")
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_idempotency_keys")),
        schema="pool",
    )
    op.create_index(
        op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False, schema="pool"
    )


def downgrade() -> None:
    op.drop_table("idempotency_keys", schema="pool")
    op.drop_table("near_bands", schema="pool")
    op.drop_column("campaigns", "near_position", schema="pool")
    op.drop_column("campaigns", "near_duplicate_threshold", schema="pool")
