"""The report as a Markdown document."""

from __future__ import annotations

from typing import Any

from services.local.report.runs import heading, remark
from services.local.report.tables import LEVELS_TITLE, MISSING, level_rows, pool_rows, rows, run_rows


def markdown(report: dict[str, Any]) -> str:
    """The report of a campaign, or of its `runs` alone."""
    sections = _campaign(report) if "campaign" in report else []
    return "\n\n".join([*sections, *(section for run in report["runs"] for section in _run(run))]) + "\n"


def _campaign(report: dict[str, Any]) -> list[str]:
    campaign, pools = report["campaign"], report["pools"]
    message = f": {campaign['message']}" if campaign["message"] else ""
    counts = (
        f"{pools['train']:,} training and {pools['eval']:,} held-out questions; {pools['tiny']:,} in the tiny pool; "
        f"{pools['groups']:,} groups with {pools['responses']:,} responses."
    )
    return [
        f"# Campaign {campaign['name']}",
        f"{campaign['status']} (stage {campaign['stage']}){message}. Rates in per cent with 95 % intervals, on held-out questions.",
        _table(rows(report)),
        f"## {LEVELS_TITLE}",
        _table(level_rows(report)),
        "## Pools",
        counts,
        _table(pool_rows(report)),
        "## Stages",
        _table(_timeline(report["timeline"])),
    ]


def _timeline(stages: list[dict[str, Any]]) -> list[list[str]]:
    return [["stage", "status", "done", "seconds"]] + [
        [
            stage["name"],
            stage["status"],
            f"{stage['done']:,} of {stage['total']:,} {stage['unit']}".strip(),
            MISSING if stage["seconds"] is None else f"{stage['seconds']:.0f}",
        ]
        for stage in stages
    ]


def _run(run: dict[str, Any]) -> list[str]:
    said = remark(run)
    sections = [f"## Run {heading(run)}", f"`{run['id']}`" + (f". {said}" if said else "")]
    return [*sections, _table(run_rows(run))] if run["steps_logged"] else sections


def _table(table: list[list[str]]) -> str:
    header, *body = table
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
