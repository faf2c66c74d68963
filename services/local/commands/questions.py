"""`headwater questions`: which questions a campaign has, as a table or as JSON lines."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.local.commands.connection import DEFAULT_DATA_DIR, DataDir, gateway
from services.local.rendering import terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from shared.contracts.questions import Question

SHOWN_CHARACTERS = 70


def questions(
    campaign: Annotated[str, typer.Argument(help="A campaign's name or id.")],
    state: Annotated[str | None, typer.Option("--state", help="candidate, certain, hard, noise, trivial, …")] = None,
    level: Annotated[int | None, typer.Option("--level", help="1 (easy) to 5 (hard).")] = None,
    source: Annotated[str | None, typer.Option("--source", help="Where they came from.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="train or eval.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="A piece of the text.")] = None,
    sort: Annotated[str | None, typer.Option("--sort", help="position, hardest or easiest.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Whole questions, a line each.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """The questions of a campaign, by pool, level, source, split and text."""
    filters: dict[str, Any] = {"state": state, "level": level, "source": source, "split": split, "text": text}
    filters["sort"] = sort
    chosen = {name: value for name, value in filters.items() if value is not None}
    with gateway(data_dir) as api:
        found = islice(api.questions(api.campaign(campaign).id, min(limit, 1000), chosen), limit)
        if as_json:
            for question in found:
                typer.echo(question.model_dump_json())
        else:
            show_questions(terminal(), found)


def show_questions(console: Console, found: Iterable[Question]) -> None:
    """A line a question."""
    for question in found:
        rate = "   –" if question.pass_rate is None else f"{question.pass_rate:4.0%}"
        level = "–" if question.level is None else str(question.level)
        words = " ".join(question.text.split())
        shown = words if len(words) <= SHOWN_CHARACTERS else f"{words[: SHOWN_CHARACTERS - 1]}…"
        console.print(f"{question.id} {question.state:<11} {level} {rate}  {shown}", highlight=False, soft_wrap=True)
