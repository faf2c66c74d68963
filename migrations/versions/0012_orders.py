"""Orders with a priority and weights; claims by priority; what a standing order takes next.

Safe on a live table: columns with a constant default, and indexes built CONCURRENTLY. It may be started again where it was
interrupted.
"""

from alembic import op

revision = "0012_orders"
down_revision = "0011_group_tokens"
branch_labels = None
depends_on = None

_LIVE = "available_at IS NOT NULL"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE pool.orders
            ADD COLUMN IF NOT EXISTS weights jsonb NOT NULL DEFAULT '{}'::jsonb,
            ADD COLUMN IF NOT EXISTS priority smallint NOT NULL DEFAULT 0,
            ADD COLUMN IF NOT EXISTS turns double precision NOT NULL DEFAULT 0
    """)
    op.execute("""
        ALTER TABLE pool.assignments
            ADD COLUMN IF NOT EXISTS priority smallint NOT NULL DEFAULT 0,
            ALTER COLUMN id SET DEFAULT uuidv7(),
            SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000)
    """)
    op.execute("ALTER TABLE pool.rollout_counts ADD COLUMN IF NOT EXISTS turn double precision NOT NULL DEFAULT 0")
    op.execute("""
        CREATE TABLE IF NOT EXISTS pool.rollout_queue (
            order_id uuid NOT NULL,
            position bigint GENERATED ALWAYS AS IDENTITY,
            question_id uuid NOT NULL,
            CONSTRAINT pk_rollout_queue PRIMARY KEY (order_id, position),
            CONSTRAINT fk_rollout_queue_order_id FOREIGN KEY (order_id) REFERENCES pool.orders (id),
            CONSTRAINT fk_rollout_queue_question_id FOREIGN KEY (question_id) REFERENCES pool.questions (id)
        )
    """)
    with op.get_context().autocommit_block():
        # So far every order took the least often taken questions first: its n-th turn with a question was turn n - 1.
        op.execute("UPDATE pool.rollout_counts SET turn = times - 1 WHERE turn = 0 AND times > 1")
        op.execute(
            "UPDATE pool.orders SET turns = (SELECT coalesce(max(times), 0) FROM pool.rollout_counts WHERE order_id = id)"
        )
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS pool.ix_assignments_claimable")
        op.execute(f"""
            CREATE INDEX CONCURRENTLY ix_assignments_claimable ON pool.assignments (priority, available_at, sequence)
            WHERE {_LIVE}
        """)
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS pool.ix_assignments_available")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS pool.ix_assignments_available")
        op.execute(f"""
            CREATE INDEX CONCURRENTLY ix_assignments_available ON pool.assignments (available_at, sequence) WHERE {_LIVE}
        """)
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS pool.ix_assignments_claimable")
    op.execute("DROP TABLE IF EXISTS pool.rollout_queue")
    op.execute("ALTER TABLE pool.rollout_counts DROP COLUMN IF EXISTS turn")
    op.execute("""
        ALTER TABLE pool.assignments
            DROP COLUMN IF EXISTS priority,
            ALTER COLUMN id SET DEFAULT gen_random_uuid(),
            RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold)
    """)
    op.execute("""
        ALTER TABLE pool.orders
            DROP COLUMN IF EXISTS weights,
            DROP COLUMN IF EXISTS priority,
            DROP COLUMN IF EXISTS turns
    """)
