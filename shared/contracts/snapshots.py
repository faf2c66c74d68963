"""Snapshots: immutable training sets built by the pool; ordered by the cascade, read by training."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import Field

from shared.contracts.base import Contract
from shared.contracts.recipe import BuildRecipe, TeachRecipe


class SnapshotRecipe(StrEnum):
    """`distill`: full-format trajectories out of verified teacher answers. `s2r`: s1,v1,...,sk,vk out of own attempts."""

    DISTILL = "distill"
    S2R = "s2r"


class SnapshotIn(Contract):
    """Deterministic for (pool state, parameters, seed). Idempotent by (campaign_id, key).

    `order_id`: the order whose groups are the source (teach for `distill`, probe for `s2r`). `teach` / `build` carry
    the parameters of the named recipe; `s2r` also mixes in rows of the snapshot `replay_snapshot_id`.
    """

    campaign_id: UUID
    key: str = Field(min_length=1, max_length=100)
    recipe: SnapshotRecipe
    order_id: UUID
    seed: int = 0
    teach: TeachRecipe | None = None
    build: BuildRecipe | None = None
    replay_snapshot_id: UUID | None = None


class SnapshotStatus(StrEnum):
    """A snapshot is built by one leased builder; a dead builder's lease expires and it is built again."""

    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


class Snapshot(Contract):
    """A snapshot. `uri`: a Parquet file, columns `question_id, question, text, segments [start, end, kind, trained], rounds`.

    `text` is the response; `segments` tile it; `trained` is the S2R mask (1 = contributes to the loss).
    `dropped`: questions left out, counted by named reason. `content_hash`: sha256 of the Parquet file. A snapshot that is
    `ready` without rows is no failure of the builder: `dropped` says why.
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
