"""Counts of levels by policy version and of moves between pools, out of what was measured and moved so far."""

from uuid import UUID, uuid5

import sqlalchemy as sa
from alembic import op

revision = "0007_difficulty_counts"
down_revision = "0006_snapshot_questions"
branch_labels = None
depends_on = None

# The newest probe under a version counts for a question.
MEASURED = """
    INSERT INTO pool.counters (scope, name, value)
    SELECT :scope, 'measured:' || policy_version || ':' || split || ':' || level, count(*)
    FROM (
        SELECT DISTINCT ON (rates.question_id, rates.policy_version) rates.policy_version, questions.split, rates.level
        FROM pool.pass_rates AS rates
        JOIN pool.orders ON orders.id = rates.order_id AND orders.purpose = 'probe'
        JOIN pool.questions ON questions.id = rates.question_id
        WHERE orders.campaign_id = :campaign
        ORDER BY rates.question_id, rates.policy_version, rates.updated_at DESC
    ) AS newest
    GROUP BY policy_version, split, level
"""
MOVED = """
    INSERT INTO pool.counters (scope, name, value)
    SELECT :scope, 'moved:' || from_state || ':' || to_state || ':' || reason, count(*)
    FROM pool.question_events AS events
    JOIN pool.questions ON questions.id = events.question_id
    WHERE questions.campaign_id = :campaign
    GROUP BY from_state, to_state, reason
"""


def scopes() -> list[tuple[UUID, UUID]]:
    campaigns = op.get_bind().execute(sa.text("SELECT id FROM pool.campaigns")).scalars()
    return [(campaign, uuid5(campaign, "difficulty")) for campaign in campaigns]


def execute(statement: str, **values: object) -> None:
    typed = [sa.bindparam(name, value, type_=sa.Uuid()) for name, value in values.items()]
    op.execute(sa.text(statement).bindparams(*typed))


def upgrade() -> None:
    for campaign, scope in scopes():
        execute(MEASURED, campaign=campaign, scope=scope)
        execute(MOVED, campaign=campaign, scope=scope)


def downgrade() -> None:
    for _, scope in scopes():
        execute("DELETE FROM pool.counters WHERE scope = :scope", scope=scope)
