"""`headwater campaign …` and `headwater submit`, by the gateway's public API."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from services.local.commands.connection import DEFAULT_DATA_DIR, DataDir, gateway
from services.local.errors import LocalError
from services.local.rendering import terminal

if TYPE_CHECKING:
    from shared.contracts.questions import IngestReport

campaign_app = typer.Typer(no_args_is_help=True, help="Create, list, show and cancel campaigns.")
SHOWN_REFUSALS = 20
CampaignName = Annotated[str, typer.Argument(help="Its name or id.")]


def read_recipe(path: Path, name: str | None = None, seed: int | None = None) -> str:
    """The text of a recipe file, with this `name` (else its own, or the file's) and `seed`; the API checks what the keys mean.

    Raises:
        LocalError: it can't be read, isn't TOML, or has a key where only a person can replace it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        own = tomllib.loads(text)
    except OSError as error:
        raise LocalError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise LocalError(f"The recipe {path} is not TOML: {error}.") from error
    wanted = {"name": name or (None if "name" in own else path.stem), "seed": seed}
    keys = {key: value for key, value in wanted.items() if value is not None}
    written = _with_keys(text, keys)
    if _toml(written) != own | keys:
        shown = " and ".join(f"'{key}'" for key in keys)
        raise LocalError(
            f"The recipe {path} cannot be given its {shown}: write {shown} at the top of the file, each on a line of its own."
        )
    return written


def _toml(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except ValueError:
        return None


def _with_keys(text: str, keys: dict[str, str | int]) -> str:
    """The recipe with these top-level keys in place of its own; every other line stays as it is."""
    lines = text.split("\n")
    tables = next((number for number, line in enumerate(lines) if line.lstrip().startswith("[")), len(lines))
    top = [line for line in lines[:tables] if line.partition("=")[0].strip(" \t\"'") not in keys]
    written = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()]
    return "\n".join((*written, *top, *lines[tables:]))


@campaign_app.command("create")
def create(
    recipe: Annotated[Path, typer.Argument(help="A TOML recipe.")],
    name: Annotated[str | None, typer.Option("--name", help="Default: its `name`, or the file's.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Create a campaign from a recipe; the same name and recipe again gives the same campaign."""
    content = read_recipe(recipe, name)
    with gateway(data_dir) as api:
        campaign = api.create_campaign(content)
    terminal().print(f"{campaign.name} {campaign.id} {campaign.status}", highlight=False)


@campaign_app.command("list")
def list_all(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """All campaigns."""
    from services.local.rendering import show_campaigns

    with gateway(data_dir) as api:
        show_campaigns(terminal(), api.campaigns())


@campaign_app.command("show")
def show(campaign: CampaignName, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """One campaign and its stages."""
    from services.local.rendering import show_campaign

    with gateway(data_dir) as api:
        show_campaign(terminal(), api.campaign(campaign))


@campaign_app.command("cancel")
def cancel(campaign: CampaignName, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop a campaign for good; what it made stays."""
    with gateway(data_dir) as api:
        cancelled = api.cancel(api.campaign(campaign).id)
    terminal().print(f"{cancelled.name} {cancelled.status}", highlight=False)


@campaign_app.command("resume")
def resume(campaign: CampaignName, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Go on with a failed campaign, at the stage that failed."""
    with gateway(data_dir) as api:
        resumed = api.resume(api.campaign(campaign).id)
    terminal().print(f"{resumed.name} {resumed.status}", highlight=False)


def submit(
    file: Annotated[Path, typer.Argument(help="Questions: NDJSON, or a JSON array.")],
    campaign: Annotated[str, typer.Option("--campaign", help="Its name or id.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Send questions to a campaign; a bad line is refused by number and reason, the rest goes in."""
    with gateway(data_dir) as api:
        reports = list(api.submit(file, api.campaign(campaign).id))
    show_ingest(terminal(), reports)
    if reports and not any(report.accepted or report.duplicate for report in reports):
        raise typer.Exit(1)


def show_ingest(console: Console, reports: list[IngestReport]) -> None:
    """What became of a submission."""
    accepted, duplicate, refused = (
        sum(getattr(report, name) for report in reports) for name in ("accepted", "duplicate", "refused")
    )
    near, quarantined = (sum(getattr(report, name) for report in reports) for name in ("near_duplicate", "quarantined"))
    nearly = f" ({near:,} of them in other words)" if near else ""
    console.print(f"{accepted:,} accepted, {duplicate:,} known already{nearly}, {refused:,} refused", highlight=False)
    if quarantined:
        console.print(
            f"{quarantined:,} stored training questions left: eval questions are equal to or near them", highlight=False
        )
    refusals = [refusal for report in reports for refusal in report.refusals]
    for refusal in refusals[:SHOWN_REFUSALS]:
        field = f" {refusal.field}" if refusal.field else ""
        console.print(
            f"  line {refusal.line}{field}: {refusal.message} ({refusal.reason})", highlight=False, markup=False
        )
    if refused > SHOWN_REFUSALS:
        console.print(f"  … and {refused - SHOWN_REFUSALS:,} more")
