"""The `headwater` command: wires the commands, and turns what goes wrong into one sentence and exit code 1."""

from __future__ import annotations

import errno
from typing import Any

import typer
from typer.core import TyperGroup

from services.local.commands import campaigns, demo, questions, report, retraction, snapshots, stack
from services.local.errors import LocalError


class _OneSentence(TyperGroup):
    """Shows a LocalError, and a full disk, as its sentence."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except LocalError as error:
            typer.echo(f"headwater: {error}", err=True)
            raise typer.Exit(1) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            place = f" ({error.filename})" if error.filename else ""
            typer.echo(f"headwater: The disk is full{place}: free some of it; the same command goes on.", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_OneSentence,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Headwater turns questions into a better model.",
)
app.command()(stack.up)
app.command()(stack.down)
app.command()(stack.status)
app.command()(stack.logs)
app.command()(demo.demo)
app.command()(campaigns.submit)
app.command()(report.report)
app.command()(questions.questions)
app.command()(retraction.retract)
app.command()(snapshots.export)
app.add_typer(campaigns.campaign_app, name="campaign")

if __name__ == "__main__":
    app()
