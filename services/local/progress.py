"""A campaign's progress while it runs: a bar a stage on a terminal, a line now and then elsewhere, and what is left.

The estimate: a running stage goes on at its own pace; a later one takes what it took on the machine of `stage_seconds`, scaled by how
this machine did so far.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from services.local.rendering import duration

if TYPE_CHECKING:
    from shared.contracts.campaigns import Campaign, Stage, StageName

LINE_INTERVAL_S = 20.0


def stage_elapsed_s(stage: Stage, now: datetime) -> float:
    """Seconds since the stage began, until its end or now."""
    if stage.started_at is None:
        return 0.0
    return max(0.0, ((stage.finished_at or now) - stage.started_at).total_seconds())


def stage_left_s(stage: Stage, now: datetime) -> float | None:
    """Seconds until the running stage ends at its own pace; None while nobody can know."""
    if not 0 < stage.done <= stage.total:
        return None
    return stage_elapsed_s(stage, now) * (stage.total - stage.done) / stage.done


def campaign_left_s(campaign: Campaign, expected_s: Mapping[StageName, float], now: datetime) -> float:
    """Seconds until the campaign ends. `expected_s` has every stage."""
    finished = [stage for stage in campaign.stages if stage.finished_at]
    known_s = sum(expected_s[stage.name] for stage in finished)
    took_s = sum(stage_elapsed_s(stage, now) for stage in finished)
    pace = took_s / known_s if known_s >= 30 else 1.0
    left_s = 0.0
    for stage in campaign.stages:
        if stage.finished_at:
            continue
        own = stage_left_s(stage, now)
        left_s += own if own is not None else max(0.0, expected_s[stage.name] * pace - stage_elapsed_s(stage, now))
    return left_s


class CampaignProgress:
    """Shows a campaign each time it's given one; use it in a `with` block."""

    def __init__(self, console: Console, expected_s: Mapping[StageName, float]) -> None:
        self._console = console
        self._expected_s = expected_s
        self._bars = Progress(
            TextColumn("{task.fields[title]:<14}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}", markup=False),
            console=console,
            disable=not console.is_terminal,
            auto_refresh=console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_line = self._last_reason = ""
        self._last_line_at = 0.0

    def __enter__(self) -> CampaignProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show(self, campaign: Campaign) -> None:
        """Bring the display up to date."""
        now = datetime.now(UTC)
        reason = campaign.message if campaign.status == "waiting" else ""
        if reason and reason != self._last_reason:
            self._console.print(f"waiting: {reason}", highlight=False, soft_wrap=True)
        self._last_reason = reason
        for stage in campaign.stages:
            if stage.started_at is None:
                continue
            words = self._words(stage, now)
            if self._console.is_terminal:
                self._bar(stage, words)
            elif stage.name == campaign.stage:
                left_s = campaign_left_s(campaign, self._expected_s, now)
                self._line(stage, f"{words}; about {duration(left_s)} in all")
        if self._console.is_terminal:
            self._whole(campaign, now)

    def _words(self, stage: Stage, now: datetime) -> str:
        words = f"{stage.unit} {duration(stage_elapsed_s(stage, now))}".strip()
        left_s = None if stage.finished_at else stage_left_s(stage, now)
        if left_s is not None:
            words += f", {duration(left_s)} left"
        return f"{words}  {stage.detail}".rstrip()

    def _bar(self, stage: Stage, words: str) -> None:
        if stage.name not in self._tasks:
            self._tasks[stage.name] = self._bars.add_task("", total=1, title=stage.name, words="")
        total = stage.total or (1 if stage.finished_at else None)
        done = total if stage.status == "done" and total else stage.done
        self._bars.update(self._tasks[stage.name], completed=done, total=total, words=words)

    def _whole(self, campaign: Campaign, now: datetime) -> None:
        words = "stages"
        if campaign.status in ("waiting", "running"):
            words += f", about {duration(campaign_left_s(campaign, self._expected_s, now))} left"
        if "campaign" not in self._tasks:
            self._tasks["campaign"] = self._bars.add_task("", total=1, title="campaign", words="")
        done = sum(stage.status == "done" for stage in campaign.stages)
        self._bars.update(self._tasks["campaign"], completed=done, total=len(campaign.stages), words=words)

    def _line(self, stage: Stage, words: str) -> None:
        changed = stage.name != self._last_line
        if not changed and time.monotonic() - self._last_line_at < LINE_INTERVAL_S:
            return
        self._last_line, self._last_line_at = stage.name, time.monotonic()
        self._console.print(f"{stage.name}: {stage.done:,} of {stage.total:,} {words}", highlight=False, soft_wrap=True)
