"""Token arrays leave `groups` and `responses` for `group_tokens`, one row a group and one partition a day.

Safe while the pool is used: rows are copied a few at a time, then what came in meanwhile is copied and the old columns are dropped under
a short lock. From there on a pool of the version before cannot store groups (its senders repeat) until the new one runs. Broken off
anywhere, it can be run again. The space of the dropped columns is given back to the system by `VACUUM FULL pool.responses`.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from alembic import op

revision = "0011_group_tokens"
down_revision = "0010_ingest"
branch_labels = None
depends_on = None

GROUPS_AT_ONCE = 200
DAYS_AHEAD = 3
# Tables whose rows are updated in columns that no index has: with room on their page, an update writes no index.
FILL_FACTORS = {"questions": 90, "pass_rates": 85, "rollout_counts": 80}
ARRAYS = ("token_ids", "logprobs", "token_ends")
COPY_GROUPS = f"""
    INSERT INTO pool.group_tokens (group_id, created_at, prompt_token_ids, {", ".join(ARRAYS)})
    SELECT g.id, g.created_at, g.prompt_token_ids,
        {", ".join(f"string_agg(r.{name}, ''::bytea ORDER BY r.position)" for name in ARRAYS)}
    FROM pool.groups g JOIN pool.responses r ON r.group_id = g.id WHERE g.id = ANY(:ids) GROUP BY g.id
    ON CONFLICT DO NOTHING
"""
COUNT_TOKENS = (
    "UPDATE pool.responses SET tokens = length(token_ids) / 4 WHERE group_id = ANY(:ids) AND length(token_ids) > 0"
)
TAKE_BACK = f"""
    UPDATE pool.responses r SET
        {", ".join(f"{name} = substring(t.{name} FROM 4 * s.start::int + 1 FOR 4 * r.tokens)" for name in ARRAYS)}
    FROM pool.group_tokens t JOIN (
        SELECT group_id, position, sum(tokens) OVER (PARTITION BY group_id ORDER BY position) - tokens AS start
        FROM pool.responses WHERE group_id = ANY(:ids)
    ) s ON s.group_id = t.group_id
    WHERE r.group_id = s.group_id AND r.position = s.position
"""
TAKE_BACK_PROMPTS = """
    UPDATE pool.groups g SET prompt_token_ids = t.prompt_token_ids FROM pool.group_tokens t
    WHERE t.group_id = g.id AND g.id = ANY(:ids)
"""


def upgrade() -> None:
    started = _patient()
    op.execute(
        f"""
        CREATE TABLE IF NOT EXISTS pool.group_tokens (
            group_id uuid NOT NULL, created_at timestamptz NOT NULL,
            {", ".join(f"{name} bytea STORAGE EXTERNAL NOT NULL" for name in ("prompt_token_ids", *ARRAYS))},
            CONSTRAINT pk_group_tokens PRIMARY KEY (group_id, created_at)
        ) PARTITION BY RANGE (created_at)
        """
    )
    op.execute("CREATE TABLE IF NOT EXISTS pool.group_tokens_default PARTITION OF pool.group_tokens DEFAULT")
    for day in _days():
        _make_partition(day)
    op.execute("ALTER TABLE pool.responses ADD COLUMN IF NOT EXISTS tokens integer NOT NULL DEFAULT 0")
    # A long text would be compressed at a third of what storing a group costs, and again take time whenever it is read.
    op.execute("ALTER TABLE pool.responses ALTER COLUMN text SET STORAGE EXTERNAL")
    for table, percent in FILL_FACTORS.items():
        op.execute(f"ALTER TABLE pool.{table} SET (fillfactor = {percent})")
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS pool.ix_groups_waiting_version")
        op.create_index(
            "ix_groups_waiting_version",
            "groups",
            ["order_id", "policy_version"],
            schema="pool",
            postgresql_where=sa.text("consumption = 'waiting'"),
            postgresql_concurrently=True,
        )
        for ids in _chunks():
            _run(COPY_GROUPS, ids=ids)
            _run(COUNT_TOKENS, ids=ids)
    _patient()
    op.execute("LOCK TABLE pool.groups, pool.responses IN ACCESS EXCLUSIVE MODE")
    missing = sa.text(
        "SELECT g.id FROM pool.groups g WHERE g.created_at > :since AND NOT EXISTS "
        "(SELECT 1 FROM pool.group_tokens t WHERE t.group_id = g.id AND t.created_at = g.created_at)"
    )
    since = started - timedelta(hours=1)
    ids = list(op.get_bind().execute(missing, {"since": since}).scalars())
    _run(COPY_GROUPS, ids=ids)
    _run(COUNT_TOKENS, ids=ids)
    for name in ARRAYS:
        op.drop_column("responses", name, schema="pool")
    op.drop_column("groups", "prompt_token_ids", schema="pool")


def downgrade() -> None:
    _patient()
    for table, names in (("responses", ARRAYS), ("groups", ("prompt_token_ids",))):
        for name in names:
            op.execute(f"ALTER TABLE pool.{table} ADD COLUMN IF NOT EXISTS {name} bytea NOT NULL DEFAULT ''")
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS pool.ix_groups_waiting_version")
        for ids in _chunks():
            _run(TAKE_BACK, ids=ids)
            _run(TAKE_BACK_PROMPTS, ids=ids)
    _patient()
    for table, names in (("responses", ARRAYS), ("groups", ("prompt_token_ids",))):
        for name in names:
            op.execute(f"ALTER TABLE pool.{table} ALTER COLUMN {name} DROP DEFAULT")
    op.execute("ALTER TABLE pool.responses ALTER COLUMN text SET STORAGE EXTENDED")
    for table in FILL_FACTORS:
        op.execute(f"ALTER TABLE pool.{table} RESET (fillfactor)")
    op.drop_column("responses", "tokens", schema="pool")
    op.drop_table("group_tokens", schema="pool")


def _patient() -> datetime:
    """Wait for a lock as long as writers can wait behind it; returns the time."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    now: datetime = op.get_bind().execute(sa.text("SELECT now()")).scalar_one()
    return now


def _run(statement: str, **values: Any) -> None:
    op.get_bind().execute(sa.text(statement), values)


def _chunks() -> Iterator[list[UUID]]:
    """The ids of all groups, in the order they were stored."""
    after = 0
    query = sa.text("SELECT id, sequence FROM pool.groups WHERE sequence > :after ORDER BY sequence LIMIT :limit")
    while rows := op.get_bind().execute(query, {"after": after, "limit": GROUPS_AT_ONCE}).all():
        after = rows[-1].sequence
        yield [row.id for row in rows]


def _days() -> list[date]:
    """The days of stored groups, and the next ones."""
    query = sa.text("SELECT DISTINCT (created_at AT TIME ZONE 'UTC')::date FROM pool.groups")
    today = datetime.now(UTC).date()
    ahead = [today + timedelta(days=days) for days in range(DAYS_AHEAD + 1)]
    return sorted({*op.get_bind().execute(query).scalars(), *ahead})


def _make_partition(day: date) -> None:
    storage = "autovacuum_vacuum_insert_threshold = -1, toast.autovacuum_vacuum_insert_threshold = -1"
    op.execute(
        f"CREATE TABLE IF NOT EXISTS pool.group_tokens_{day:%Y%m%d} PARTITION OF pool.group_tokens "
        f"FOR VALUES FROM ('{day}T00:00:00+00:00') TO ('{day + timedelta(days=1)}T00:00:00+00:00') WITH ({storage})"
    )
