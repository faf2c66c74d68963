"""The registry of policies: what may be registered, what its weights are, and whether it is live.

Invariant: a policy never changes. A name within a campaign belongs to one content for ever.
"""

import asyncio
import hashlib
import json
from uuid import UUID

from services.generation.client.external import ExternalClient, ExternalError
from services.generation.models import PolicyRow
from services.generation.repository import PolicyRepository
from services.generation.service.fleet import Fleet
from services.generation.service.loading import Target
from services.generation.service.weights import WeightsStore
from shared.contracts.policies import Policy, PolicyIn, PolicyKind, WeightsState
from shared.db import Database
from shared.errors import ConflictError, HeadwaterError, NotFoundError, UnavailableError

FULL_WEIGHTS = frozenset({PolicyKind.BASE, PolicyKind.CHECKPOINT})
ENGINE_KINDS = FULL_WEIGHTS | {PolicyKind.ADAPTER}
_COLUMNS = tuple(PolicyIn.model_fields)


class PolicyService:
    """Registers, finds and loads policies."""

    def __init__(self, database: Database, fleet: Fleet, external: ExternalClient, weights: WeightsStore) -> None:
        self._database = database
        self._fleet = fleet
        self._external = external
        self._weights = weights
        self._rows: dict[UUID, PolicyRow] = {}

    async def register(self, policy: PolicyIn) -> tuple[Policy, bool]:
        """The policy of (campaign, name), and whether this call made it.

        Raises ConflictError `policy_exists` when the name has other content, HeadwaterError `weights_elsewhere` and
        `address_invalid`, and what `WeightsStore.fetch` raises.
        """
        if policy.kind is PolicyKind.EXTERNAL and policy.uri:
            self._external.require_address(policy.uri)
        policy = _with_hash(policy)
        if policy.kind in ENGINE_KINDS:
            self._weights.require_ours(policy.uri)
        async with self._database.transaction() as session:
            known = await PolicyRepository(session).by_name(policy.campaign_id, policy.name)
        if known is None:
            await self._check_base(policy)
            if policy.kind in ENGINE_KINDS:
                await asyncio.to_thread(self._weights.fetch, policy.uri, policy.content_hash, policy.kind)
        async with self._database.transaction() as session:
            policies = PolicyRepository(session)
            await policies.lock_weights(alone=False)
            row, created = await policies.insert_or_get(policy)
            if created and policy.kind in ENGINE_KINDS:
                await self._require_kept(policies, policy)
        _require_same_content(row, policy)
        return await self._wire(row), created

    async def _require_kept(self, policies: PolicyRepository, policy: PolicyIn) -> None:
        """Nothing was pruned since the weights were verified, and nothing can be before the row is there."""
        base = None if policy.base_policy_id is None else await policies.get(policy.base_policy_id)
        if base is not None and base.weights != WeightsState.KEPT:
            raise _pruned(base.name)
        await asyncio.to_thread(self._weights.fetch, policy.uri, policy.content_hash, policy.kind)

    async def _check_base(self, policy: PolicyIn) -> None:
        if policy.kind is not PolicyKind.ADAPTER:
            return
        if policy.base_policy_id is None:
            raise HeadwaterError("base_missing", f"The adapter {policy.name} needs 'base_policy_id'.", 422)
        base = await self._row(policy.base_policy_id)
        if PolicyKind(base.kind) not in FULL_WEIGHTS:
            sentence = f"The adapter {policy.name} cannot sit on {base.name}, which is of kind {base.kind}; name a base or checkpoint."
            raise HeadwaterError("base_not_full_weights", sentence, 422)

    async def _row(self, policy_id: UUID) -> PolicyRow:
        """A policy never changes but for its weights' end, so it is read once; sampling goes on while the database restarts."""
        return self._rows.get(policy_id) or await self._read_row(policy_id)

    async def _read_row(self, policy_id: UUID) -> PolicyRow:
        async with self._database.transaction() as session:
            row = await PolicyRepository(session).get(policy_id)
        if row is None:
            raise NotFoundError("policy", policy_id)
        self._rows[policy_id] = row
        return row

    async def get(self, policy_id: UUID) -> Policy:
        """Raises NotFoundError."""
        return await self._wire(await self._row(policy_id))

    async def read(self, policy_id: UUID) -> Policy:
        """As the database has it now. Raises NotFoundError."""
        return await self._wire(await self._read_row(policy_id))

    async def find(self, id_or_name: str) -> Policy:
        """By id, or by a name that only one campaign uses. Raises NotFoundError, ConflictError `name_not_unique`."""
        try:
            return await self.get(UUID(id_or_name))
        except ValueError:
            pass
        async with self._database.transaction() as session:
            rows = await PolicyRepository(session).named(id_or_name)
        if not rows:
            raise NotFoundError("policy", id_or_name)
        if len(rows) > 1:
            raise ConflictError("name_not_unique", f"Several campaigns have a policy called {id_or_name}; use its id.")
        return await self._wire(rows[0])

    async def listed(self, campaign_id: UUID | None) -> list[Policy]:
        """Policies by version, of one campaign or of all."""
        async with self._database.transaction() as session:
            rows = await PolicyRepository(session).listed(campaign_id)
        return [await self._wire(row) for row in rows]

    async def make_live(self, policy_id: UUID) -> Policy:
        """Load the policy into every replica; an external server is asked whether it is there.

        Raises NotFoundError; ConflictError when the weights cannot be loaded; UnavailableError when nobody answers.
        """
        policy = await self.get(policy_id)
        if policy.kind in ENGINE_KINDS:
            await self._fleet.make_live(await self.target(policy))
        if policy.kind is PolicyKind.EXTERNAL:
            try:
                await self._external.check(policy.uri, policy.api_key_env)
            except ExternalError as error:
                raise UnavailableError(error.code.replace("-", "_"), error.message) from error
        return await self.get(policy_id)

    async def target(self, policy: Policy) -> Target:
        """What an engine must hold for this policy, verified on disk, and of the engine's architecture.

        Raises ConflictError `artifact_pruned`, and what `WeightsStore.fetch` raises.
        """
        base = policy if policy.base_policy_id is None else await self.get(policy.base_policy_id)
        _require_weights(policy, base)
        try:
            return await asyncio.to_thread(self._target, policy, base.uri, base.content_hash)
        except (HeadwaterError, OSError):
            # Another process may have pruned them since they were read here, or while they were.
            _require_weights(await self.read(policy.id), await self.read(base.id))
            raise

    def _target(self, policy: Policy, base_uri: str, base_hash: str) -> Target:
        base = self._weights.fetch(base_uri, base_hash, PolicyKind.CHECKPOINT)
        is_adapter = policy.kind is PolicyKind.ADAPTER
        adapter = self._weights.fetch(policy.uri, policy.content_hash, policy.kind) if is_adapter else None
        return Target(str(policy.id), policy.name, base_hash, base, adapter)

    async def _wire(self, row: PolicyRow) -> Policy:
        live = True
        if row.kind == PolicyKind.ADAPTER:
            assert row.base_policy_id is not None, "an adapter is registered with its base"
            live = self._fleet.is_live((await self._row(row.base_policy_id)).content_hash, str(row.id))
        elif row.kind in FULL_WEIGHTS:
            live = self._fleet.is_live(row.content_hash, None)
        live = live and row.weights == WeightsState.KEPT
        columns = {name: getattr(row, name) for name in _COLUMNS}
        return Policy(id=row.id, created_at=row.created_at, live=live, weights=WeightsState(row.weights), **columns)


def _with_hash(policy: PolicyIn) -> PolicyIn:
    """Weights come with their hash; a policy without weights is hashed by where and what it is."""
    if policy.kind in ENGINE_KINDS:
        if not (policy.uri and policy.content_hash):
            sentence = f"The policy {policy.name} is of kind {policy.kind} and needs 'uri' and 'content_hash'."
            raise HeadwaterError("weights_missing", sentence, 422)
        return policy
    if policy.kind is PolicyKind.EXTERNAL and not (policy.uri and policy.model):
        sentence = f"The external policy {policy.name} needs 'uri', an http(s) URL, and 'model'."
        raise HeadwaterError("address_missing", sentence, 422)
    identity = json.dumps([policy.kind, policy.uri, policy.model, policy.api_key_env])
    return policy.model_copy(update={"content_hash": hashlib.sha256(identity.encode()).hexdigest()})


def _require_weights(*policies: Policy) -> None:
    for policy in policies:
        if policy.weights is not WeightsState.KEPT:
            raise _pruned(policy.name)


def _pruned(name: str) -> ConflictError:
    sentence = f"{name} is there for lineage only: its weights were pruned; use the newest version of its run."
    return ConflictError("artifact_pruned", sentence)


def _require_same_content(row: PolicyRow, policy: PolicyIn) -> None:
    ours = (row.kind, row.content_hash, row.base_policy_id)
    if ours != (policy.kind, policy.content_hash, policy.base_policy_id):
        raise ConflictError(
            "policy_exists",
            f"The campaign has a policy called {policy.name} with other content ({row.kind} {row.content_hash[:12]}); "
            "policies never change, choose another name.",
        )
