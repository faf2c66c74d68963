"""Tables of the cascade: campaigns, one row per (campaign, stage), and the counts after each probe."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, ForeignKey, MetaData, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

metadata = MetaData(schema="cascade")


class Base(DeclarativeBase):
    """Base of the cascade's tables."""

    metadata = metadata


class CampaignRow(Base):
    """A campaign. Its row lock is what makes concurrent advances harmless."""

    __tablename__ = "campaigns"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    recipe: Mapped[dict[str, Any]] = mapped_column(JSONB)
    status: Mapped[str] = mapped_column(Text)
    stage: Mapped[str] = mapped_column(Text)
    message: Mapped[str] = mapped_column(Text, server_default="")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class StageRow(Base):
    """One stage of one campaign.

    `request` is the body of the order, snapshot or run that the stage makes, written before it is sent: a repeated
    advance sends the very same bytes under the same key. `attempt` counts the resumes after a failure and is part of
    that key. `policy_id` / `policy_version`: the policy that came out of the stage.
    """

    __tablename__ = "stages"

    campaign_id: Mapped[UUID] = mapped_column(ForeignKey(CampaignRow.id), primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    status: Mapped[str] = mapped_column(Text)
    done: Mapped[int] = mapped_column(server_default="0")
    total: Mapped[int] = mapped_column(server_default="0")
    unit: Mapped[str] = mapped_column(Text, server_default="")
    detail: Mapped[str] = mapped_column(Text, server_default="")
    attempt: Mapped[int] = mapped_column(server_default="0")
    request: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    order_id: Mapped[UUID | None]
    snapshot_id: Mapped[UUID | None]
    run_id: Mapped[UUID | None]
    policy_id: Mapped[UUID | None]
    policy_version: Mapped[int | None]
    tokens_trained: Mapped[int | None] = mapped_column(BigInteger)
    tokens_sampled: Mapped[int | None] = mapped_column(BigInteger)
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class LevelCountsRow(Base):
    """The pools of one campaign as they were when a probe had finished."""

    __tablename__ = "level_counts"

    campaign_id: Mapped[UUID] = mapped_column(ForeignKey(CampaignRow.id), primary_key=True)
    probe: Mapped[str] = mapped_column(Text, primary_key=True)
    levels: Mapped[dict[str, int]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    states: Mapped[dict[str, int]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    recorded_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
