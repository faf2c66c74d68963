"""Snapshots: immutable training sets built by the pool; ordered by the cascade and by clients, read by training."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import Field, model_validator

from shared.contracts.base import Contract, Items
from shared.contracts.recipe import BuildRecipe, TeachRecipe


class SnapshotRecipe(StrEnum):
    """`distill`: full-format trajectories out of verified teacher answers. `s2r`: s1,v1,...,sk,vk out of own attempts.

    `rejection`: right answers as they are, the policy's own or a teacher's. `offline-rl`: whole scored groups with their rewards.
    """

    DISTILL = "distill"
    S2R = "s2r"
    REJECTION = "rejection"
    OFFLINE_RL = "offline-rl"


class RejectionRecipe(Contract):
    """Rejection sampling: right answers that were not cut off, reference solutions among them; each text of a question once.

    `max_per_question` of them, drawn by the seed. `balance_levels`: as equally many rows of each level as `max_rows` allows, or,
    without `max_rows`, as many of every level as of the rarest; the level is the question's, and those without one are
    a level of their own. `max_rows`: 0 means no limit.
    """

    max_per_question: int = Field(default=4, ge=1, le=256)
    balance_levels: bool = False
    max_rows: int = Field(default=0, ge=0)


class OfflineRlRecipe(Contract):
    """Offline reinforcement learning (S2R): groups whose pass rate is in [`pass_rate_from`, `pass_rate_to`].

    A trajectory that goes on after a right attempt that it called correct is left out, and so is one without a score. The baseline of a
    segment is the mean reward of the segments at its place in trajectories of the same accuracy bin, of which there are
    `accuracy_bins`, equally wide. `max_groups`: 0 means no limit.
    """

    pass_rate_from: float = Field(default=0.1, ge=0, le=1)
    pass_rate_to: float = Field(default=0.7, ge=0, le=1)
    accuracy_bins: int = Field(default=10, ge=1, le=100)
    max_groups: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> "OfflineRlRecipe":
        if self.pass_rate_from > self.pass_rate_to:
            raise ValueError("pass_rate_from must not be above pass_rate_to")
        return self


_PARAMETERS = {
    SnapshotRecipe.DISTILL: frozenset({"teach"}),
    SnapshotRecipe.S2R: frozenset({"build", "replay_snapshot_id", "more_order_ids"}),
    SnapshotRecipe.REJECTION: frozenset({"rejection", "more_order_ids"}),
    SnapshotRecipe.OFFLINE_RL: frozenset({"offline_rl", "more_order_ids"}),
}


class SnapshotIn(Contract):
    """Deterministic for (pool state, parameters, seed). Idempotent by (campaign_id, key).

    `order_id`: the order whose groups are the source (teach for `distill`, probe for `s2r`); all but
    `distill` may take those of `more_order_ids`, too; for `s2r` these may be orders for verifications. `teach`,
    `build`, `rejection` and `offline_rl` carry the parameters of the recipe of that name;
    `s2r` also mixes in rows of the snapshot `replay_snapshot_id`.
    """

    campaign_id: UUID
    key: str = Field(min_length=1, max_length=100)
    recipe: SnapshotRecipe
    order_id: UUID
    more_order_ids: Items[UUID] = Field(default=(), max_length=100)
    seed: int = 0
    teach: TeachRecipe | None = None
    build: BuildRecipe | None = None
    rejection: RejectionRecipe | None = None
    offline_rl: OfflineRlRecipe | None = None
    replay_snapshot_id: UUID | None = None

    @property
    def order_ids(self) -> tuple[UUID, ...]:
        """Every order whose groups are the source, each once."""
        return tuple(dict.fromkeys((self.order_id, *self.more_order_ids)))

    @model_validator(mode="after")
    def _of_its_recipe(self) -> "SnapshotIn":
        for name in sorted(frozenset[str]().union(*_PARAMETERS.values()) - _PARAMETERS[self.recipe]):
            if getattr(self, name):
                raise ValueError(f"'{name}' is not for recipe '{self.recipe}'; leave it out")
        return self


class SnapshotStatus(StrEnum):
    """A snapshot is built by one leased builder; a dead builder's lease expires and it is built again."""

    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


class Snapshot(Contract):
    """A snapshot. `id` is of its campaign and key; `content_hash` (sha256) is of its Parquet file, and names the file.

    So the same content under two keys is two snapshots and one file. Columns of the file: `question_id`; `prompt` and
    `completion`, each a list of one message [role, content]; `segments` [start, end, kind, trained]; `rounds`. `offline-rl` has more:
    docs/snapshots.md. `segments` tile the content of the completion; `trained` is the S2R mask (1 = contributes to the loss).

    `dropped`: what was left out (questions, groups or rows), counted by named reason. A snapshot that is `ready` without rows
    is no failure of the builder: `dropped` says why.
    """

    id: UUID
    campaign_id: UUID
    key: str
    recipe: SnapshotRecipe
    status: SnapshotStatus
    error: str | None = None
    uri: str = ""
    content_hash: str = ""
    rows: int = 0
    rounds: dict[int, int] = Field(default_factory=dict)
    dropped: dict[str, int] = Field(default_factory=dict)
    created_at: datetime


class ExportFormat(StrEnum):
    """`parquet`: the snapshot's own file. `jsonl`: the same rows, one JSON object a line."""

    PARQUET = "parquet"
    JSONL = "jsonl"
