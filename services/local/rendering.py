"""What people see in the terminal: tables by rich, plain lines where nobody looks at a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.local.directory import DataDirectory
from services.local.report.runs import heading, remark
from services.local.report.tables import LEVELS_TITLE, level_rows, pool_rows, rows, run_rows
from services.local.state import ProcessStatus, StackState

if TYPE_CHECKING:
    from shared.contracts.campaigns import Campaign

_STYLES = {
    ProcessStatus.READY: "green",
    ProcessStatus.DONE: "dim",
    ProcessStatus.FAILED: "red",
    ProcessStatus.RESTARTING: "yellow",
}


PLAIN_WIDTH = 160


def terminal(output: TextIO | None = None) -> Console:
    """The console of this command; wide where nobody looks at a terminal, so that lines of a file stay whole.

    Words are shown as they are: `[…]` in a path or in a server's answer is no markup.
    """
    console = Console(file=output, markup=False)
    return console if console.is_terminal else Console(file=output, width=PLAIN_WIDTH, markup=False)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def show_status(console: Console, state: StackState, directory: DataDirectory) -> None:
    """The processes of the running stack, its addresses, and where their keys are."""
    table = Table(title=f"headwater {state.status} · model {state.model}", title_justify="left")
    for name, justify in (("process", "left"), ("status", "left"), ("port", "right"), ("pid", "right")):
        table.add_column(name, justify="right" if justify == "right" else "left")
    for name in ("uptime", "restarts", "memory"):
        table.add_column(name, justify="right")
    total_bytes = 0
    for process in state.processes.values():
        lives = process.pid is not None and process.status in (ProcessStatus.READY, ProcessStatus.STARTING)
        memory = memory_bytes(process.pid) if lives and process.pid else 0
        total_bytes += memory
        table.add_row(
            process.name,
            Text(process.status, style=_STYLES.get(process.status, "")),
            str(process.port or ""),
            str(process.pid) if lives else "",
            duration(time.time() - process.since) if lives and process.since else "",
            str(process.restarts or ""),
            f"{memory / (1 << 20):,.0f} MB" if memory else "",
        )
    console.print(table)
    if state.warning:
        console.print(state.warning, highlight=False, soft_wrap=True)
    if not state.urls:
        console.print("the model is being made or downloaded", highlight=False)
        return
    lines = (
        f"gateway {state.urls['gateway']} (API key: {directory.api_key})",
        f"Flower  {state.urls['flower']} (user headwater, password: {directory.secret_file('flower_password')})",
        f"memory  {total_bytes / (1 << 30):.1f} GB",
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def memory_bytes(pid: int) -> int:
    """Memory of a process and all it started, shared pages counted by share."""
    import psutil

    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            total += int(process.memory_full_info().pss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def show_campaigns(console: Console, campaigns: list[Campaign]) -> None:
    """All campaigns, a row each."""
    table = Table("name", "id", "status", "stage", "model", "created")
    for campaign in campaigns:
        table.add_row(
            campaign.name,
            str(campaign.id),
            str(campaign.status),
            str(campaign.stage),
            campaign.recipe.model.base,
            f"{campaign.created_at:%Y-%m-%d %H:%M}",
        )
    console.print(table)


def show_campaign(console: Console, campaign: Campaign) -> None:
    """One campaign and its stages."""
    title = f"{campaign.name} {campaign.id} {campaign.status}, stage {campaign.stage}"
    console.print(title, style="bold", highlight=False)
    if campaign.message:
        console.print(campaign.message, highlight=False, soft_wrap=True)
    table = Table("stage", "status", "done", "took", "detail")
    for stage in campaign.stages:
        took = (
            (stage.finished_at - stage.started_at).total_seconds() if stage.started_at and stage.finished_at else None
        )
        done = f"{stage.done:,} of {stage.total:,} {stage.unit}" if stage.total else ""
        table.add_row(str(stage.name), str(stage.status), done, "" if took is None else duration(took), stage.detail)
    console.print(table)


def show_report(console: Console, report: dict[str, Any]) -> None:
    """The report of a campaign, or of its `runs` alone. What the policies are worth comes last, where a terminal shows it."""
    for run in report["runs"]:
        _show_run(console, run)
    if "campaign" in report:
        _show_policies(console, report)
        _show_what_runs(console, report)


def _show_policies(console: Console, report: dict[str, Any]) -> None:
    """Metrics by policy, accuracy by level, and the pools."""
    campaign = report["campaign"]
    title = f"{campaign['name']}: {campaign['status']}, stage {campaign['stage']} (held-out questions, 95 % intervals)"
    console.print(_table(title, rows(report)))
    console.print(_table(LEVELS_TITLE, level_rows(report)))
    pools = report["pools"]
    counts = f"{pools['train']:,} training, {pools['eval']:,} held out, {pools['tiny']:,} in the tiny pool"
    console.print(_table(f"questions by state and level ({counts})", pool_rows(report)))


def _show_run(console: Console, run: dict[str, Any]) -> None:
    """Where a run stands, why it failed or what it waits for, and its curves."""
    if run["steps_logged"]:
        console.print(_table(heading(run), run_rows(run)))
    else:
        console.print(heading(run), style="italic", highlight=False)
    for words in (remark(run), f"run {run['id']}"):
        if words:
            console.print(words, highlight=False, soft_wrap=True)


def _show_what_runs(console: Console, report: dict[str, Any]) -> None:
    """What runs, and what the campaign waits for or failed of."""
    campaign = report["campaign"]
    for stage in report["timeline"]:
        if stage["status"] == "running":
            words = f"running: {stage['name']}, {stage['done']:,} of {stage['total']:,} {stage['unit']}"
            console.print(words, highlight=False)
    if campaign["message"]:
        console.print(campaign["message"], highlight=False, soft_wrap=True)


def _table(title: str, lines: list[list[str]]) -> Table:
    header, *body = lines
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left")
    for line in body:
        table.add_row(*line)
    return table
