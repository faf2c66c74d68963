"""Generation's tables: the registry of policies. What an engine holds right now is never stored; it is asked or loaded."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, ForeignKey, Index, Integer, MetaData, Text, UniqueConstraint, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

metadata = MetaData(schema="generation")


class Base(DeclarativeBase):
    """Everything in the schema `generation`."""

    metadata = metadata


class PolicyRow(Base):
    """One immutable policy version. A name belongs to one content within a campaign. `weights`: a WeightsState."""

    __tablename__ = "policies"
    __table_args__ = (
        UniqueConstraint("campaign_id", "name", name="policies_campaign_name_key"),
        Index("policies_name_idx", "name"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    campaign_id: Mapped[UUID]
    name: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    version: Mapped[int] = mapped_column(Integer)
    uri: Mapped[str] = mapped_column(Text)
    content_hash: Mapped[str] = mapped_column(Text)
    base_policy_id: Mapped[UUID | None] = mapped_column(ForeignKey("generation.policies.id"))
    parent_policy_id: Mapped[UUID | None]
    run_id: Mapped[UUID | None]
    step: Mapped[int | None] = mapped_column(Integer)
    model: Mapped[str | None] = mapped_column(Text)
    api_key_env: Mapped[str | None] = mapped_column(Text)
    weights: Mapped[str] = mapped_column(Text, server_default="kept")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
