"""Lists: an index for each filter that can be rare, an index of question texts, and the campaign of each event.

Most of it is outside a transaction, so that nobody waits for it; begun again after a failure, it goes on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008_lists"
down_revision = "0007_difficulty_counts"
branch_labels = None
depends_on = None

# Each with its table, its columns and which rows are in it.
INDEXES = (
    ("ix_questions_tiny", "questions", ["campaign_id", "position"], "tiny"),
    ("ix_questions_level", "questions", ["campaign_id", "level", "position"], "level IS NOT NULL"),
    ("ix_questions_pass_rate", "questions", ["campaign_id", "pass_rate", "position"], "pass_rate IS NOT NULL"),
    ("ix_questions_source", "questions", ["campaign_id", "source", "position"], "source <> ''"),
    ("ix_questions_kind", "questions", ["campaign_id", "kind", "position"], "kind <> 'math'"),
    ("ix_questions_domain", "questions", ["campaign_id", "domain", "position"], "domain <> 'text'"),
    ("ix_question_events_campaign_id_id", "question_events", ["campaign_id", "id"], None),
    ("ix_question_events_campaign_id_reason_id", "question_events", ["campaign_id", "reason", "id"], None),
    ("ix_orders_campaign_id_created_at_id", "orders", ["campaign_id", "created_at", "id"], None),
    (
        "ix_assignments_given_up",
        "assignments",
        ["order_id", "state", "sequence"],
        "state IN ('dead', 'withdrawn')",
    ),
    ("ix_groups_leased", "groups", ["order_id", "sequence"], "consumption = 'leased'"),
    ("ix_groups_dropped", "groups", ["order_id", "drop_reason", "sequence"], "drop_reason IS NOT NULL"),
    ("ix_groups_policy_id_sequence", "groups", ["policy_id", "sequence"], None),
    ("ix_snapshots_campaign_id_created_at_id", "snapshots", ["campaign_id", "created_at", "id"], None),
    ("ix_batches_order_id_created_at_id", "batches", ["order_id", "created_at", "id"], None),
)
EVENTS_AT_ONCE = 10_000


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public")
    op.create_table(
        "question_texts",
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("campaign_id", "position", name=op.f("pk_question_texts")),
        schema="pool",
        if_not_exists=True,
    )
    op.create_index(
        "ix_question_texts_pieces",
        "question_texts",
        ["text"],
        unique=False,
        schema="pool",
        postgresql_using="gin",
        postgresql_ops={"text": "gin_trgm_ops"},
        if_not_exists=True,
    )
    op.add_column(
        "question_events", sa.Column("campaign_id", sa.Uuid(), nullable=True), schema="pool", if_not_exists=True
    )
    op.execute("ALTER TABLE pool.question_events DROP CONSTRAINT IF EXISTS question_events_campaign_id_not_null")
    with op.get_context().autocommit_block():
        _fill_events()
        op.execute(
            "ALTER TABLE pool.question_events ADD CONSTRAINT question_events_campaign_id_not_null NOT NULL campaign_id NOT VALID"
        )
        _fill_events()
        op.execute("ALTER TABLE pool.question_events VALIDATE CONSTRAINT question_events_campaign_id_not_null")
        for name, table, columns, where in INDEXES:
            op.drop_index(name, table_name=table, schema="pool", postgresql_concurrently=True, if_exists=True)
            op.create_index(
                name,
                table,
                columns,
                unique=False,
                schema="pool",
                postgresql_where=None if where is None else sa.text(where),
                postgresql_concurrently=True,
            )


def _fill_events() -> None:
    """The campaigns of events without one, some at a time, so that no row is locked for long."""
    connection = op.get_bind()
    last = -1
    while True:
        filled = connection.execute(
            sa.text("""
                WITH following AS (
                    SELECT id, question_id FROM pool.question_events
                    WHERE id > :last AND campaign_id IS NULL ORDER BY id LIMIT :limit
                ), filled AS (
                    UPDATE pool.question_events AS events SET campaign_id = questions.campaign_id
                    FROM following JOIN pool.questions ON questions.id = following.question_id
                    WHERE events.id = following.id
                    RETURNING events.id
                )
                SELECT max(id) FROM filled
            """),
            {"last": last, "limit": EVENTS_AT_ONCE},
        ).scalar()
        if filled is None:
            return
        last = filled


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name, table, _, _ in INDEXES:
            op.drop_index(name, table_name=table, schema="pool", postgresql_concurrently=True, if_exists=True)
    op.drop_column("question_events", "campaign_id", schema="pool")
    op.drop_table("question_texts", schema="pool")
