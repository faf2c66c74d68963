"""Every query of generation."""

from uuid import UUID, uuid4

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.generation.models import PolicyRow
from shared.contracts.policies import PolicyIn, WeightsState

MAX_LISTED = 10_000
_WEIGHTS_LOCK = 0x77656967687473  # any number that nobody else locks


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

    async def lock_weights(self, *, alone: bool) -> None:
        """Until the end of the transaction: no weights are removed; `alone`: nor registered."""
        lock = func.pg_advisory_xact_lock if alone else func.pg_advisory_xact_lock_shared
        await self.session.execute(select(lock(_WEIGHTS_LOCK)))

    async def newest_of_run(self, run_id: UUID) -> UUID | None:
        """The policy with the highest version that a run published."""
        statement = select(PolicyRow.id).where(PolicyRow.run_id == run_id).order_by(PolicyRow.version.desc()).limit(1)
        return (await self.session.scalars(statement)).one_or_none()

    async def dependant(self, policy_id: UUID) -> str | None:
        """The name of a policy that was trained from this one, or sits on it."""
        of_it = or_(PolicyRow.parent_policy_id == policy_id, PolicyRow.base_policy_id == policy_id)
        return (await self.session.scalars(select(PolicyRow.name).where(of_it).limit(1))).one_or_none()

    async def kept_weights(self) -> list[tuple[str, str]]:
        """(uri, content hash) of every policy whose weights are kept."""
        statement = select(PolicyRow.uri, PolicyRow.content_hash).where(PolicyRow.weights == WeightsState.KEPT)
        return [(uri, content_hash) for uri, content_hash in (await self.session.execute(statement)).tuples()]

    async def in_state(self, state: WeightsState) -> list[PolicyRow]:
        """Policies whose weights are in this state."""
        return list(await self.session.scalars(select(PolicyRow).where(PolicyRow.weights == state)))

    async def set_weights(self, policy_id: UUID, state: WeightsState) -> None:
        """Say what has become of the weights."""
        await self.session.execute(update(PolicyRow).where(PolicyRow.id == policy_id).values(weights=state))

    async def listed(self, campaign_id: UUID | None) -> list[PolicyRow]:
        """Policies of one campaign, or all, by version; at most MAX_LISTED."""
        statement = select(PolicyRow).order_by(PolicyRow.version, PolicyRow.created_at, PolicyRow.id).limit(MAX_LISTED)
        if campaign_id is not None:
            statement = statement.where(PolicyRow.campaign_id == campaign_id)
        return list(await self.session.scalars(statement))
