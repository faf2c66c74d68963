"""One request at a time under an `Idempotency-Key`.

The claims are unlogged: a Postgres that crashed has undone what they stood for, and comes back without them.
"""

from alembic import op

revision = "0013_idempotency_claims"
down_revision = "0012_orders"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE UNLOGGED TABLE pool.idempotency_claims (
            key text NOT NULL,
            token uuid NOT NULL,
            until timestamp with time zone NOT NULL,
            CONSTRAINT pk_idempotency_claims PRIMARY KEY (key)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE pool.idempotency_claims")
