"""Tables of the gateway: API keys. Only the sha256 of a key is kept."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, LargeBinary, MetaData, Text, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

metadata = MetaData(schema="gateway")


class Base(DeclarativeBase):
    """Base of the gateway's tables."""

    metadata = metadata


class ApiKeyRow(Base):
    """One API key. `scopes`: what it may do; a key that was revoked may do nothing."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    sha256: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
