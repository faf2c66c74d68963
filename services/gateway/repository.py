"""Every query of the gateway."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.gateway.models import ApiKeyRow

_BOOTSTRAP_LOCK = 0x48570001


class KeyRepository:
    """API keys, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def valid(self, sha256: bytes) -> ApiKeyRow | None:
        """The key with this hash, unless it was revoked."""
        statement = select(ApiKeyRow).where(ApiKeyRow.sha256 == sha256, ApiKeyRow.revoked_at.is_(None))
        return (await self._session.scalars(statement)).one_or_none()

    async def any_valid(self) -> bool:
        """Whether some key opens the door."""
        return bool(await self._session.scalar(select(exists().where(ApiKeyRow.revoked_at.is_(None)))))

    async def insert(self, key_id: UUID, name: str, sha256: bytes, scopes: Sequence[str]) -> None:
        """Store a new key."""
        self._session.add(ApiKeyRow(id=key_id, name=name, sha256=sha256, scopes=list(scopes)))
        await self._session.flush()

    async def lock_bootstrap(self) -> None:
        """Until the transaction ends, nobody else makes a first key."""
        await self._session.execute(select(func.pg_advisory_xact_lock(_BOOTSTRAP_LOCK)))
