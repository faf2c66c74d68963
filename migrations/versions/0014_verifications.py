"""Orders for verifications of stored answers: the style they are written in, and the stage of a campaign that makes them.

Safe on a live table: a column that may be null, and one row a campaign.
"""

from alembic import op

revision = "0014_verifications"
down_revision = "0013_idempotency_claims"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE pool.orders ADD COLUMN IF NOT EXISTS style text")
    # A campaign that has built its trajectories goes on without.
    op.execute("""
        INSERT INTO cascade.stages (campaign_id, name, status)
        SELECT campaign_id, 'verify', CASE status WHEN 'pending' THEN 'pending' ELSE 'done' END
        FROM cascade.stages WHERE name = 'build'
        ON CONFLICT DO NOTHING
    """)


def downgrade() -> None:
    op.execute("UPDATE cascade.campaigns SET stage = 'build' WHERE stage = 'verify'")
    op.execute("DELETE FROM cascade.stages WHERE name = 'verify'")
    op.execute("ALTER TABLE pool.orders DROP COLUMN IF EXISTS style")
