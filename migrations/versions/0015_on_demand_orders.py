"""Standing orders that make assignments only while a trainer waits for a batch.

Safe on a live table: a column with a constant default.
"""

from alembic import op

revision = "0015_on_demand_orders"
down_revision = "0014_verifications"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE pool.orders ADD COLUMN IF NOT EXISTS on_demand boolean NOT NULL DEFAULT false")


def downgrade() -> None:
    op.execute("ALTER TABLE pool.orders DROP COLUMN IF EXISTS on_demand")
