"""A campaign and its report as the gateway would send them."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

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
from shared.contracts.recipe import Recipe

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
