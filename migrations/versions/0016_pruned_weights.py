"""Whether a policy's weights are there still: they may be pruned, the row stays.

Safe on a live table: a column with a constant default.
"""

from alembic import op

revision = "0016_pruned_weights"
down_revision = "0015_on_demand_orders"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE generation.policies ADD COLUMN IF NOT EXISTS weights text NOT NULL DEFAULT 'kept'")


def downgrade() -> None:
    op.execute("ALTER TABLE generation.policies DROP COLUMN IF EXISTS weights")
