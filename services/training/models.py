"""Tables of the schema `training`: runs with their lease, and the logged points of each."""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(schema="training")

runs = Table(
    "runs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("campaign_id", Uuid, nullable=False),
    Column("key", Text, nullable=False),
    Column("spec", JSONB, nullable=False),
    Column("state", Text, nullable=False),
    Column("step", Integer, nullable=False, server_default=text("0")),
    Column("steps", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False, server_default=text("0")),
    # A lease is held by whoever knows the newest fence, until it expires; every write of a trainer names its fence.
    Column("fence", Integer, nullable=False, server_default=text("0")),
    Column("lease_expires_at", DateTime(timezone=True)),
    Column("worker", Text),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("stalled_attempts", Integer, nullable=False, server_default=text("0")),
    Column("not_before", DateTime(timezone=True)),
    Column("checkpoint_step", Integer),
    Column("failure", Text),
    Column("message", Text, nullable=False, server_default=text("''")),
    Column("policy_id", Uuid),
    Column("policy_version", Integer),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    UniqueConstraint("campaign_id", "key", name="runs_campaign_key"),
    Index("runs_open", "state", postgresql_where=text("finished_at IS NULL")),
)

run_metrics = Table(
    "run_metrics",
    metadata,
    Column("run_id", Uuid, ForeignKey("training.runs.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("values", JSONB, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
