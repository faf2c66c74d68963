"""`headwater retract`: questions are left out from now on, and the policies that they touched are named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from services.local.commands.connection import DEFAULT_DATA_DIR, DataDir, gateway
from services.local.errors import LocalError
from services.local.rendering import terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from shared.contracts.lineage import Retractions

SHOWN_MISSING = 20


def retract(
    questions: Annotated[list[UUID] | None, typer.Argument(help="Ids of questions.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with each question.")] = "",
    campaign: Annotated[str | None, typer.Option("--campaign", help="With --source: its name or id.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="Every question of this source.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Leave questions out of every order, snapshot and batch from now on, and name the policies they touched."""
    if not reason.strip():
        raise LocalError("A retraction needs its reason: --reason 'wrong answer'.")
    if bool(questions) == (source is not None) or (source is None) != (campaign is None):
        raise LocalError("Name the questions either by their ids or by --campaign and --source.")
    with gateway(data_dir) as api:
        if source is not None and campaign is not None:
            answers = list(api.retract_source(reason, api.campaign(campaign).id, source))
        else:
            answers = list(api.retract(reason, questions or []))
    if show_retractions(terminal(), answers):
        raise typer.Exit(1)


def show_retractions(console: Console, answers: Sequence[Retractions]) -> int:
    """What became of the questions and whom they touched; returns how many were not there."""
    from shared.contracts.lineage import RetractionStatus as Status

    items = [item for answer in answers for item in answer.items]
    count = {status: sum(item.status is status for item in items) for status in Status}
    dropped = sum(item.dropped_groups for item in items)
    console.print(
        f"{count[Status.RETRACTED]:,} retracted, {count[Status.ALREADY]:,} already, {count[Status.NOT_FOUND]:,} not found; "
        f"{dropped:,} groups that waited for a trainer dropped",
        highlight=False,
    )
    missing = [item.question_id for item in items if item.status is Status.NOT_FOUND]
    for question_id in missing[:SHOWN_MISSING]:
        console.print(f"  there is no question {question_id}", highlight=False)
    touched: dict[UUID, tuple[str, int, int]] = {}
    for policy in (policy for item in items for policy in item.policies):
        _, _, questions = touched.get(policy.policy_id, (policy.name, policy.version, 0))
        touched[policy.policy_id] = (policy.name, policy.version, questions + 1)
    for policy_id, (name, version, questions) in touched.items():
        console.print(
            f"  touched: policy {name} (version {version}, {policy_id}) by {questions:,} of them", highlight=False
        )
    return len(missing)
