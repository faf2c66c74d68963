"""Routes of the policy registry and of the engine's own facts."""

from uuid import UUID

from fastapi import APIRouter, Response

from services.generation.api import ServicesDependency
from shared.contracts.engine import EngineInfo
from shared.contracts.policies import Policy, PolicyIn

router = APIRouter(tags=["policies"])


@router.get("/v1/engine")
async def get_engine(services: ServicesDependency) -> EngineInfo:
    """The base weights the engine was started with, and how many replicas answer."""
    return await services.engines.info()


@router.post("/v1/policies", status_code=201, responses={200: {"model": Policy}})
async def register_policy(policy: PolicyIn, response: Response, services: ServicesDependency) -> Policy:
    """Register a policy: 201 when new, 200 when the same one is there, 409 when its name has other content."""
    registered, created = await services.policies.register(policy)
    response.status_code = 201 if created else 200
    return registered


@router.get("/v1/policies")
async def list_policies(services: ServicesDependency, campaign: UUID | None = None) -> list[Policy]:
    """Policies by version."""
    return await services.policies.listed(campaign)


@router.get("/v1/policies/{policy_id}")
async def get_policy(policy_id: UUID, services: ServicesDependency) -> Policy:
    """One policy; `live` is what the engines hold right now."""
    return await services.policies.read(policy_id)


@router.post("/v1/policies/{policy_id}/live")
async def make_policy_live(policy_id: UUID, services: ServicesDependency) -> Policy:
    """Load the policy into every replica; answers when each confirmed it. Repeating it is harmless."""
    return await services.policies.make_live(policy_id)


@router.post("/v1/policies/{policy_id}/prune")
async def prune_policy(policy_id: UUID, services: ServicesDependency) -> Policy:
    """Have the weights of a run's intermediate version removed; the policy stays, for lineage. Repeating it is harmless.

    Nobody can sample with it or train from it afterwards: ask for what no open order and no open run uses.
    """
    return await services.pruning.prune(policy_id)
