"""Campaigns and their report: made by the cascade, read by clients, the CLI and the console."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import Field

from shared.contracts.base import Contract
from shared.contracts.metrics import OrderMetrics
from shared.contracts.questions import PoolCounts
from shared.contracts.recipe import Recipe


class CampaignIn(Contract):
    """POST /v1/campaigns. Idempotent by name: the same name and recipe give the same campaign, another recipe is a conflict."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$")
    recipe: Recipe = Recipe()


class CampaignStatus(StrEnum):
    """`waiting` has its reason in `message` (such as: too few questions yet)."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StageName(StrEnum):
    """The cascade, in order."""

    REGISTER = "register"
    EVAL_BASE = "eval-base"
    TEACH = "teach"
    DISTILL = "distill"
    SFT_0 = "sft-0"
    EVAL_SFT_0 = "eval-sft-0"
    PROBE_SFT_0 = "probe-sft-0"
    BUILD = "build"
    SFT_1 = "sft-1"
    EVAL_SFT_1 = "eval-sft-1"
    PROBE_SFT_1 = "probe-sft-1"
    RL = "rl"
    EVAL_RL = "eval-rl"


class StageStatus(StrEnum):
    """Every edge is idempotent; a stage never starts over."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Stage(Contract):
    """One stage of one campaign: progress in `unit`s (questions, steps), and the ids of what it made."""

    name: StageName
    status: StageStatus
    done: int = 0
    total: int = 0
    unit: str = ""
    detail: str = ""
    order_id: UUID | None = None
    snapshot_id: UUID | None = None
    run_id: UUID | None = None
    policy_id: UUID | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Campaign(CampaignIn):
    """A campaign and where it stands. `message`: what it waits for or why it failed, and what to do."""

    id: UUID
    status: CampaignStatus
    stage: StageName
    message: str = ""
    stages: tuple[Stage, ...] = ()
    created_at: datetime


class ReportStage(Contract):
    """One policy in the report: `metrics` is None until its eval order is complete.

    `seconds`: wall clock of the stages that made it; `tokens_trained`, `tokens_sampled`: what it cost.
    """

    stage: str
    policy: str | None
    metrics: OrderMetrics | None = None
    seconds: float | None = None
    tokens_trained: int | None = None
    tokens_sampled: int | None = None


class LevelCounts(Contract):
    """Questions by level (1 easy ... 5 hard) after one probe."""

    probe: StageName
    levels: dict[int, int]
    states: dict[str, int]


class Report(Contract):
    """GET /v1/campaigns/{id}/report, also half-way. `stages` are base, sft-0, sft-1, rl."""

    campaign: Campaign
    stages: tuple[ReportStage, ...]
    pools: PoolCounts
    levels: tuple[LevelCounts, ...] = ()
