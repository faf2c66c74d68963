"""Policies: immutable model versions; registered by training and the cascade, kept by generation."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import Field

from shared.contracts.base import Contract, TeacherKeyName, Text


class PolicyKind(StrEnum):
    """`adapter` is a LoRA over its base policy; `reference` answers with the solutions that came with the questions."""

    BASE = "base"
    CHECKPOINT = "checkpoint"
    ADAPTER = "adapter"
    EXTERNAL = "external"
    REFERENCE = "reference"


class WeightsState(StrEnum):
    """`pruning`: nobody may load them any more, and their files are on the way out. `pruned`: they are gone; the policy is
    there for lineage only.
    """

    KEPT = "kept"
    PRUNING = "pruning"
    PRUNED = "pruned"


# Those with weights.
TRAINABLE_KINDS = (PolicyKind.BASE, PolicyKind.CHECKPOINT, PolicyKind.ADAPTER)


class PolicyIn(Contract):
    """Registration of a policy; idempotent by (campaign, name, content_hash).

    `uri`: directory of the weights (base, checkpoint, adapter), under the artifacts' address or the engine's model; or the
    URL of an OpenAI-compatible server (external).
    `base_policy_id`: for an adapter, the policy of kind base or checkpoint that it sits on.
    `parent_policy_id`: the policy that training started from. `version`: counts up within a campaign; staleness is a
    difference of versions. `model`: the external server's model name. `api_key_env`: NAME of the environment variable
    that holds the external server's key, never the key; `HEADWATER_TEACHER_KEY…`, so that nothing else can be sent out.
    """

    campaign_id: UUID
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")
    kind: PolicyKind
    version: int = Field(default=0, ge=0)
    uri: Text = ""
    content_hash: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    base_policy_id: UUID | None = None
    parent_policy_id: UUID | None = None
    run_id: UUID | None = None
    step: int | None = None
    model: Text | None = None
    api_key_env: TeacherKeyName | None = None


class Policy(PolicyIn):
    """A registered policy. `live`: every replica confirmed that it serves it."""

    id: UUID
    live: bool
    weights: WeightsState = WeightsState.KEPT
    created_at: datetime
