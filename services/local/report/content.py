"""The report as plain data, which is its JSON form: of a campaign with `runs`, or the `runs` alone.

Each stage is flat: a metric's value under its name (null where nothing was counted) and its 95 % interval under
NAME_interval, so that `stages[i]["final_accuracy"]` is a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from services.local.client import is_uuid
from services.local.errors import LocalError
from services.local.report.runs import run_json

if TYPE_CHECKING:
    from services.local.client import Gateway
    from shared.contracts.campaigns import Report, ReportStage
    from shared.contracts.metrics import Estimate, TrajectoryMetrics
    from shared.contracts.runs import Run

RATES = (
    "final_accuracy",
    "first_accuracy",
    "verification_accuracy",
    "error_recall",
    "correct_precision",
    "wrong_to_right",
    "right_to_wrong",
    "unparsed_rate",
)
MEANS = ("mean_rounds", "mean_tokens")
METRICS = (*RATES[:7], *MEANS, RATES[7])


def campaign_content(api: Gateway, campaign: UUID) -> dict[str, Any]:
    """The report of a campaign with all its runs, as far as it has come."""
    report = api.report(campaign)
    return report_json(report, [run_json(run, api.points(run.id)) for run in api.runs(campaign)])


def run_content(api: Gateway, run: str, campaign: UUID | None) -> dict[str, Any]:
    """The report of one run: by its id, or of a campaign by its key."""
    if campaign is None:
        if not is_uuid(run):
            raise LocalError(f"{run!r} is no id of a run; name its campaign, too, to find it by its key.")
        found = api.run(UUID(run))
    else:
        found = _of_campaign(api.runs(campaign), run)
    return {"runs": [run_json(found, api.points(found.id))]}


def _of_campaign(runs: tuple[Run, ...], wanted: str) -> Run:
    found = next((run for run in runs if wanted in (run.key, str(run.id))), None)
    if found is None:
        keys = ", ".join(run.key for run in runs) or "none"
        raise LocalError(f"The campaign has no run {wanted!r}; its runs: {keys}.")
    return found


def report_json(report: Report, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The report as plain data; `runs` as `run_json` has them."""
    return {
        "campaign": {
            "id": str(report.campaign.id),
            "name": report.campaign.name,
            "status": report.campaign.status.value,
            "stage": report.campaign.stage.value,
            "message": report.campaign.message,
        },
        "stages": [_stage_json(stage) for stage in report.stages],
        "pools": report.pools.model_dump(mode="json"),
        "levels": [levels.model_dump(mode="json") for levels in report.levels],
        "timeline": [
            {
                "name": stage.name.value,
                "status": stage.status.value,
                "done": stage.done,
                "total": stage.total,
                "unit": stage.unit,
                "seconds": _seconds(stage.started_at, stage.finished_at),
            }
            for stage in report.campaign.stages
        ],
        "runs": runs,
        "recipe": report.campaign.recipe.model_dump(mode="json"),
    }


def _seconds(started: Any, finished: Any) -> float | None:
    return (finished - started).total_seconds() if started and finished else None


def _stage_json(stage: ReportStage) -> dict[str, Any]:
    overall = stage.metrics.overall if stage.metrics else None
    by_level = stage.metrics.by_level if stage.metrics else {}
    return {
        "stage": stage.stage,
        "policy": stage.policy,
        **_metrics_json(overall),
        "seconds": stage.seconds,
        "tokens_trained": stage.tokens_trained,
        "tokens_sampled": stage.tokens_sampled,
        "by_level": {str(level): _metrics_json(metrics) for level, metrics in sorted(by_level.items())},
    }


def _metrics_json(metrics: TrajectoryMetrics | None) -> dict[str, Any]:
    flat: dict[str, Any] = {"n": metrics.n if metrics else 0, "unscored": metrics.unscored if metrics else 0}
    for name in METRICS:
        estimate: Estimate | None = getattr(metrics, name) if metrics else None
        counted = estimate is not None and estimate.value is not None
        flat[name] = estimate.value if estimate and counted else None
        flat[f"{name}_interval"] = [estimate.low, estimate.high] if estimate and counted else None
        flat[f"{name}_n"] = estimate.n if estimate else 0
    return flat
