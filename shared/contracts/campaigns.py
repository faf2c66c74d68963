"""Campaigns and their report: made by the cascade, read by clients, the CLI and the console."""

from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import Field, ValidationError, field_validator
from pydantic_core import InitErrorDetails

from shared.contracts.base import Contract
from shared.contracts.metrics import OrderMetrics
from shared.contracts.questions import PoolCounts
from shared.contracts.recipe import Recipe


def _require_address(url: str | None) -> None:
    if url is not None and not (url.lower().startswith(("http://", "https://")) and urlsplit(url).hostname):
        raise ValueError("must be an http(s) address with a host, such as https://host/v1")


class CampaignIn(Contract):
    """POST /v1/campaigns. Idempotent by name: the same name and recipe give the same campaign, another recipe is a conflict.

    Its checks judge what comes in; a `Campaign` that was stored before one of them stays readable.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$")
    recipe: Recipe = Recipe()

    @field_validator("recipe")
    @classmethod
    def _teacher_has_address(cls, recipe: Recipe) -> Recipe:
        url = recipe.teach.teacher.url
        try:
            _require_address(url)
        except ValueError as error:
            where = ("teach", "teacher", "url")
            problem = InitErrorDetails(type="value_error", loc=where, input=url, ctx={"error": error})
            raise ValidationError.from_exception_data(cls.__name__, [problem]) from error
        return recipe

    @field_validator("recipe")
    @classmethod
    def _adapters_agree(cls, recipe: Recipe) -> Recipe:
        stages = (("sft0", recipe.sft0.lora), ("sft1", recipe.sft1.lora), ("rl", recipe.rl.lora))
        for (before, adapter), (after, lora) in pairwise(stages):
            if adapter and lora and (adapter.rank, adapter.alpha) != (lora.rank, lora.alpha):
                raise ValueError(
                    f"{after}.lora has rank {lora.rank} and alpha {lora.alpha}, but {after} trains on the adapter of {before}, "
                    f"which has {adapter.rank} and {adapter.alpha}: use the same in both, or leave [{after}.lora] out to merge it"
                )
        return recipe

    @field_validator("recipe")
    @classmethod
    def _rollouts_are_the_policys_own(cls, recipe: Recipe) -> Recipe:
        sampling = recipe.rl.sampling
        if (sampling.temperature, sampling.top_p) != (1.0, 1.0):
            raise ValueError(
                f"rl.sampling has temperature {sampling.temperature:g} and top_p {sampling.top_p:g}, but the log-probabilities of "
                "RL are those of the policy as it is, so its rollouts must be sampled with temperature = 1 and top_p = 1; other "
                "stages may differ"
            )
        return recipe


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
    VERIFY = "verify"
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


class Campaign(Contract):
    """A campaign and where it stands. `message`: what it waits for or why it failed, and what to do."""

    name: str
    recipe: Recipe
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
