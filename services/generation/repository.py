"""Every query of generation."""

from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.generation.models import PolicyRow
from shared.contracts.policies import PolicyIn

MAX_LISTED = 10_000


class PolicyRepository:
    """Policies within the caller's transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def insert_or_get(self, policy: PolicyIn) -> tuple[PolicyRow, bool]:
        """The row of (campaign, name), and whether this call made it. The caller compares its content."""
        statement = (
            insert(PolicyRow)
            .values(id=uuid4(), **policy.model_dump())
            .on_conflict_do_nothing(constraint="policies_campaign_name_key")
            .returning(PolicyRow)
        )
        row = (await self.session.scalars(statement)).one_or_none()
        if row is not None:
            return row, True
        existing = await self.by_name(policy.campaign_id, policy.name)
        assert existing is not None, "policies are never deleted, so a conflicting row is there"
        return existing, False

    async def by_name(self, campaign_id: UUID, name: str) -> PolicyRow | None:
        """The policy of this name within a campaign."""
        statement = select(PolicyRow).where(PolicyRow.campaign_id == campaign_id, PolicyRow.name == name)
        return (await self.session.scalars(statement)).one_or_none()

    async def get(self, policy_id: UUID) -> PolicyRow | None:
        """The policy of this id."""
        return await self.session.get(PolicyRow, policy_id)

    async def named(self, name: str) -> list[PolicyRow]:
        """Policies of this name in any campaign: the two newest, which is enough to see whether a name is unique."""
        statement = select(PolicyRow).where(PolicyRow.name == name).order_by(PolicyRow.created_at.desc()).limit(2)
        return list(await self.session.scalars(statement))

    async def listed(self, campaign_id: UUID | None) -> list[PolicyRow]:
        """Policies of one campaign, or all, by version; at most MAX_LISTED."""
        statement = select(PolicyRow).order_by(PolicyRow.version, PolicyRow.created_at, PolicyRow.id).limit(MAX_LISTED)
        if campaign_id is not None:
            statement = statement.where(PolicyRow.campaign_id == campaign_id)
        return list(await self.session.scalars(statement))
