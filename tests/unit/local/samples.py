"""A campaign, its runs and its report as the gateway would send them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from services.local.report.content import report_json
from services.local.report.runs import run_json
from shared.contracts.campaigns import (
    Campaign,
    CampaignStatus,
    LevelCounts,
    Report,
    ReportStage,
    Stage,
    StageName,
    StageStatus,
)
from shared.contracts.metrics import Estimate, OrderMetrics, TrajectoryMetrics
from shared.contracts.questions import PoolCounts
from shared.contracts.recipe import Recipe, RlRecipe, SftRecipe
from shared.contracts.runs import Run, RunMetric, RunState

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NUMBER = UUID("00000000-0000-0000-0000-000000000001")


def estimate(value: float | None, n: int = 400) -> Estimate:
    if value is None:
        return Estimate(value=None, low=None, high=None, n=0)
    return Estimate(value=value, low=value - 0.05, high=value + 0.05, n=n)


def metrics(accuracy: float) -> TrajectoryMetrics:
    rates = dict.fromkeys(
        (
            "first_accuracy",
            "verification_accuracy",
            "correct_precision",
            "wrong_to_right",
            "right_to_wrong",
            "unparsed_rate",
        ),
        estimate(0.25),
    )
    return TrajectoryMetrics(
        n=400,
        unscored=1,
        final_accuracy=estimate(accuracy),
        error_recall=estimate(None),
        mean_rounds=estimate(1.5),
        mean_tokens=estimate(50),
        **rates,
    )


def campaign(status: CampaignStatus = CampaignStatus.RUNNING) -> Campaign:
    done = Stage(
        name=StageName.TEACH,
        status=StageStatus.DONE,
        done=600,
        total=600,
        unit="questions",
        started_at=NOW - timedelta(seconds=100),
        finished_at=NOW - timedelta(seconds=40),
    )
    running = Stage(
        name=StageName.SFT_0,
        status=StageStatus.RUNNING,
        done=100,
        total=300,
        unit="steps",
        started_at=NOW - timedelta(seconds=40),
    )
    pending = Stage(name=StageName.BUILD, status=StageStatus.PENDING)
    stages = (done, running, pending)
    return Campaign(
        name="tiny-seed0",
        recipe=Recipe(),
        id=NUMBER,
        status=status,
        stage=StageName.SFT_0,
        stages=stages,
        created_at=NOW,
    )


def report() -> Report:
    order = OrderMetrics(order_id=NUMBER, overall=metrics(0.7), by_level={1: metrics(0.9)}, tokens_sampled=9)
    return Report(
        campaign=campaign(),
        stages=(
            ReportStage(stage="base", policy="base-0", metrics=order, seconds=1.5, tokens_sampled=9),
            ReportStage(stage="sft-0", policy=None),
        ),
        pools=PoolCounts(hard=7, train=100, levels={1: 3, 5: 4}),
        levels=(LevelCounts(probe=StageName.PROBE_SFT_0, levels={1: 2}, states={"hard": 6}),),
    )


def run(method: str, **changes: Any) -> Run:
    """A run of three steps, by an order or a snapshot."""
    sft, rl = (SftRecipe(steps=3), None) if method == "sft" else (None, RlRecipe(steps=3, max_staleness=2))
    values = {
        "campaign_id": NUMBER,
        "key": method,
        "method": method,
        "start_policy_id": NUMBER,
        "snapshot_id": NUMBER if sft else None,
        "order_id": NUMBER if rl else None,
        "sft": sft,
        "rl": rl,
        "publish_name": method,
        "first_version": 1,
        "id": NUMBER,
        "state": RunState.SUCCEEDED,
        "step": 3,
        "steps": 3,
        "tokens": 1200,
        "created_at": NOW,
        "started_at": NOW - timedelta(seconds=60),
        "finished_at": NOW,
    }
    return Run.model_validate(values | changes)


def points(steps: int, **curves: Any) -> list[RunMetric]:
    """What a trainer counted, and a point a step: a falling loss, and these curves by step; None is left out."""
    logged = [RunMetric(step=0, values={"rows": 9.0}, at=NOW)]
    for step in range(1, steps + 1):
        values = {"loss": float(steps + 1 - step)} | {name: value(step) for name, value in curves.items()}
        known = {name: value for name, value in values.items() if value is not None}
        logged.append(RunMetric(step=step, values=known, at=NOW))
    return logged


def content() -> dict[str, Any]:
    """The report as plain data, with an SFT run."""
    return report_json(report(), [run_json(run("sft"), points(3))])
