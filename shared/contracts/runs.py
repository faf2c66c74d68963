"""Runs: one training job. Ordered by the cascade (or a user), executed by training."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import Field, model_validator

from shared.contracts.base import Contract
from shared.contracts.recipe import RlRecipe, SftRecipe


class RunMethod(StrEnum):
    """How the policy is trained."""

    SFT = "sft"
    RL = "rl"


class RunIn(Contract):
    """A training job; idempotent by (campaign_id, key).

    `start_policy_id`: the policy to start from, also the KL reference. `snapshot_id` for SFT. For RL `order_id`
    (standing), or without one `snapshot_id` of recipe `offline-rl`.
    `publish_name`: name of the resulting policy; `first_version`: version number of the first policy that it publishes
    (an RL run's intermediate versions count up from there).
    """

    campaign_id: UUID
    key: str = Field(min_length=1, max_length=100)
    method: RunMethod
    start_policy_id: UUID
    snapshot_id: UUID | None = None
    order_id: UUID | None = None
    sft: SftRecipe | None = None
    rl: RlRecipe | None = None
    publish_name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$")
    first_version: int = Field(ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _complete(self) -> "RunIn":
        if self.method is RunMethod.SFT and (self.snapshot_id is None or self.sft is None):
            raise ValueError("an sft run needs 'snapshot_id' and 'sft'")
        if self.method is RunMethod.RL and (self.rl is None or (self.order_id is None and self.snapshot_id is None)):
            raise ValueError("an rl run needs 'rl' and an 'order_id', or the 'snapshot_id' of recipe offline-rl")
        return self

    @property
    def recipe(self) -> SftRecipe | RlRecipe | None:
        """That of its method."""
        return self.sft if self.method is RunMethod.SFT else self.rl


class RunState(StrEnum):
    """`queued` also after a worker died: the lease expired and the next worker resumes from the checkpoint.

    `pausing`: the trainer ends its step and writes a checkpoint; then the run is `paused` until somebody resumes it.
    """

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RunFailure(StrEnum):
    """Why a run failed. `no_row_fits`: the snapshot is in order, but the recipe leaves none of it to train on.

    `batch_lost`: groups that it had trained on went back to the pool, again and again. `policy_exists`: another policy of the
    campaign has the name that it publishes under.
    """

    NO_PROGRESS = "no_progress"
    BATCH_LOST = "batch_lost"
    NOT_A_NUMBER = "not_a_number"
    OUT_OF_MEMORY = "out_of_memory"
    BAD_SNAPSHOT = "bad_snapshot"
    NO_ROW_FITS = "no_row_fits"
    BAD_MODEL = "bad_model"
    POLICY_EXISTS = "policy_exists"
    DISK_FULL = "disk_full"
    CRASHED = "crashed"
    TOO_MANY_ATTEMPTS = "too_many_attempts"


class Run(RunIn):
    """A run and where it stands. `tokens`: tokens trained on so far. `policy_id`: the final published policy.

    `failure` and `message`: why it failed; while it is queued or running, why the last attempt ended, until there is a new
    checkpoint, or (`message` alone) what it waits for.
    """

    id: UUID
    state: RunState
    step: int
    steps: int
    tokens: int = 0
    attempts: int = 0
    failure: RunFailure | None = None
    message: str = ""
    policy_id: UUID | None = None
    policy_version: int | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class RunList(Contract):
    """GET /v1/runs: oldest first."""

    items: tuple[Run, ...]


class RunMetric(Contract):
    """One logged point of a run: `values` such as loss, reward_mean, kl, clip_fraction, staleness_mean, tokens_per_s."""

    step: int
    values: dict[str, float]
    at: datetime
