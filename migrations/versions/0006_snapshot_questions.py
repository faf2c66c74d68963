"""Which questions a snapshot has rows of: looked up both ways."""

import sqlalchemy as sa
from alembic import op

revision = "0006_snapshot_questions"
down_revision = "0005_gateway"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The foreign keys need a short lock on two live tables; who would wait for it longer than this tries again later.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "snapshot_questions",
        sa.Column("snapshot_id", sa.Uuid(), nullable=False),
        sa.Column("question_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["question_id"], ["pool.questions.id"], name=op.f("fk_snapshot_questions_question_id")),
        sa.ForeignKeyConstraint(["snapshot_id"], ["pool.snapshots.id"], name=op.f("fk_snapshot_questions_snapshot_id")),
        sa.PrimaryKeyConstraint("snapshot_id", "question_id", name=op.f("pk_snapshot_questions")),
        schema="pool",
    )
    op.create_index(
        op.f("ix_snapshot_questions_question_id"), "snapshot_questions", ["question_id"], unique=False, schema="pool"
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("snapshot_questions", schema="pool")
