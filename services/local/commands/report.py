"""`headwater report`: what became of a campaign, or how one run goes, in each form."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.local.commands.connection import DEFAULT_DATA_DIR, DataDir, gateway
from services.local.errors import LocalError
from services.local.rendering import terminal

if TYPE_CHECKING:
    from services.local.client import Gateway


class ReportFormat(StrEnum):
    """How `headwater report` says it."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"
    PLOT = "plot"


def report(
    campaign: Annotated[str | None, typer.Argument(help="Its name or id.")] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="Only this run: its id, or the key of a run of CAMPAIGN.")
    ] = None,
    output_format: Annotated[ReportFormat, typer.Option("--format", help="How it's written.")] = ReportFormat.TABLE,
    output: Annotated[Path | None, typer.Option("--output", help="A file instead of the terminal.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """The report of a campaign with the curves of its runs, or of one run; any time, also half-way."""
    from services.local.report.markdown import markdown

    with gateway(data_dir) as api:
        content = _content(api, campaign, run)
    if output_format is ReportFormat.PLOT:
        _plot(content, output or Path("report.png"))
    elif output_format is ReportFormat.TABLE and output is None:
        from services.local.rendering import show_report

        show_report(terminal(), content)
    else:
        text = json.dumps(content, indent=2) if output_format is ReportFormat.JSON else markdown(content)
        if output is None:
            typer.echo(text)
        else:
            write_text(output, text)


def _content(api: Gateway, campaign: str | None, run: str | None) -> dict[str, Any]:
    from services.local.report.content import campaign_content, run_content

    if run is not None:
        return run_content(api, run, None if campaign is None else api.campaign(campaign).id)
    if campaign is not None:
        return campaign_content(api, api.campaign(campaign).id)
    raise LocalError("Name a campaign, or a run with --run, to report on.")


def _plot(content: dict[str, Any], path: Path) -> None:
    from services.local.report.plot import plot

    drawn, runs = plot(content, path), len(content["runs"])
    rest = "" if drawn == runs else f" (the newest {drawn} of {runs} runs; a PDF has a page of each)"
    terminal().print(f"written: {path}{rest}", highlight=False)


def write_text(path: Path, text: str) -> None:
    """Write a file; LocalError says why it can't be."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LocalError(f"The file {path} cannot be written: {error.strerror}.") from error
