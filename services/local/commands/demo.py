"""`headwater demo`: one whole campaign on this machine, from nothing to its report.

Running it twice is harmless: questions are known by their content and the campaign by its name, so a second run goes on
where the first one stopped, and a finished one is only reported.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from services.local.commands.connection import DEFAULT_DATA_DIR, DataDir, api_key
from services.local.directory import DataDirectory
from services.local.errors import LocalError
from services.local.rendering import terminal

if TYPE_CHECKING:
    from examples.demos import Demo
    from services.local.client import Gateway
    from services.local.state import StackState
    from shared.contracts.campaigns import Campaign

POLL_INTERVAL_S = 2.0
UNREACHABLE_LIMIT_S = 180.0


def demo(
    recipe: Annotated[str, typer.Option("--recipe", help="tiny, or smollm2.")] = "tiny",
    seed: Annotated[int, typer.Option("--seed", help="Of the questions, the model and the training.")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Run one whole campaign: questions in, three better models out, and a report."""
    from services.local.client import Gateway

    console = terminal()
    directory = DataDirectory.at(data_dir)
    chosen = _demo(recipe)
    questions = write_questions(directory, chosen, f"{recipe}-seed{seed}", seed)
    with (
        running_stack(console, directory, chosen, seed, keep=keep) as state,
        Gateway(state.urls["gateway"], api_key(directory)) as gateway,
    ):
        campaign = run_campaign(console, directory, gateway, chosen, f"{recipe}-seed{seed}", seed, questions)
    if campaign.status != "succeeded":
        raise LocalError(f"The campaign {campaign.name} is {campaign.status}: {campaign.message or 'no reason given'}")


@contextmanager
def running_stack(
    console: Console, directory: DataDirectory, demo: Demo, seed: int, *, keep: bool = False
) -> Iterator[StackState]:
    """The stack of a directory with this demo's model, all of it ready. One that was started here ends with the block, or is kept.

    SIGTERM ends the block as Ctrl-C does: with exit code 130.
    """
    from services.local import stack

    supervisor: subprocess.Popen[bytes] | None = None
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        running = stack.running(directory)
        if running is None or not running.is_up:
            console.print(
                f"starting the processes on {directory.root} (the engine takes a minute or two)", highlight=False
            )
            supervisor = stack.start_detached(stack.UpOptions(directory, demo.model, seed), ends_with_me=not keep)
        yield _wait(console, directory, supervisor, demo, seed)
    except KeyboardInterrupt:
        console.print("\nStopping. The same command goes on from here.")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
        if supervisor is not None and not keep:
            console.print("stopping the processes", highlight=False)
            stack.stop_detached(directory, supervisor)
        elif stack.running(directory) is not None:
            console.print("left running; stop it with `headwater down`", highlight=False)


def _demo(name: str) -> Demo:
    from examples.demos import RECIPES

    if name not in RECIPES:
        raise LocalError(f"There is no demo {name!r}; there are: {', '.join(RECIPES)}.")
    return RECIPES[name]


def _questions_file(directory: DataDirectory, demo: Demo, name: str) -> Path:
    """Named also by the command that makes it, so that another version's questions are never taken for these."""
    command = hashlib.sha256(demo.questions.encode()).hexdigest()[:8]
    return directory.root / "demo" / f"{name}-{command}.ndjson"


def write_questions(directory: DataDirectory, demo: Demo, name: str, seed: int) -> Path:
    """The file of this demo's questions for the campaign `name`, made if it isn't there."""
    path = _questions_file(directory, demo, name)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    command = [sys.executable, "-m", *shlex.split(demo.questions), "--out", str(draft), "--seed", str(seed)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise LocalError(f"The questions could not be made; {demo.questions} said:\n{made.stderr.strip()[-800:]}")
    draft.replace(path)
    return path


def _wait(
    console: Console, directory: DataDirectory, supervisor: subprocess.Popen[bytes] | None, demo: Demo, seed: int
) -> StackState:
    """The stack, when all of it is ready. It must serve the demo's model."""
    from services.local import stack
    from services.local.ports import unusual_ports

    shown: set[str] = set()

    def show(state: StackState) -> None:
        if (state.model, state.seed) != (demo.model, seed):
            raise LocalError(
                f"Headwater runs with the model {state.model!r}, seed {state.seed}, and this demo needs {demo.model!r}, "
                f"seed {seed}: stop it first with `headwater down`, or name another directory with --data-dir."
            )
        ready = {name for name, process in state.processes.items() if process.status in ("ready", "done")}
        for name in sorted(ready - shown):
            shown.add(name)
            if state.status == "starting":
                console.print(f"  {len(shown):>2} of {len(state.processes)} {name}", highlight=False)

    state = stack.wait_until_running(directory, supervisor, show)
    for sentence in unusual_ports(state.ports):
        console.print(sentence, highlight=False)
    console.print(
        f"gateway {state.urls['gateway']}, Flower {state.urls['flower']}, logs {directory.logs}", highlight=False
    )
    return state


def run_campaign(
    console: Console, directory: DataDirectory, gateway: Gateway, demo: Demo, name: str, seed: int, questions: Path
) -> Campaign:
    """The campaign, ended, with its report shown. One that had failed is tried again."""
    from services.local.client import OtherContentError
    from services.local.commands.campaigns import read_recipe, show_ingest

    try:
        campaign = gateway.create_campaign(read_recipe(demo.recipe, name, seed))
    except OtherContentError as error:
        raise LocalError(
            f"{directory.root} holds the campaign {name} of another version of the recipe {demo.recipe}: "
            "take another directory with --data-dir (make demo DATA=...)."
        ) from error
    if campaign.status not in ("succeeded", "cancelled"):
        show_ingest(console, list(gateway.submit(questions, campaign.id)))
    if campaign.status == "failed":
        words = f"The campaign {name} had failed in {campaign.stage}; trying again. The reason was: {campaign.message}"
        console.print(words, highlight=False, soft_wrap=True)
        campaign = gateway.resume(campaign.id)
    campaign = _watch(console, directory, gateway, campaign, demo)
    _show_report(console, gateway, campaign, directory)
    return campaign


def _watch(console: Console, directory: DataDirectory, gateway: Gateway, campaign: Campaign, demo: Demo) -> Campaign:
    """Show the campaign until it has ended, and what its processes warn of. A gateway that is being restarted is waited for."""
    from services.local.client import UnreachableError
    from services.local.progress import CampaignProgress
    from services.local.state import load_state

    answered_at, said = time.monotonic(), ""
    with CampaignProgress(console, demo.stage_seconds) as progress:
        while campaign.status in ("waiting", "running"):
            progress.show(campaign)
            state = load_state(directory)
            warning = state.warning if state else ""
            if warning and warning != said:
                console.print(warning, highlight=False, soft_wrap=True)
            said = warning
            time.sleep(POLL_INTERVAL_S)
            try:
                campaign = gateway.campaign(str(campaign.id))
                answered_at = time.monotonic()
            except UnreachableError:
                if time.monotonic() - answered_at > UNREACHABLE_LIMIT_S:
                    raise
        progress.show(campaign)
    return campaign


def _show_report(console: Console, gateway: Gateway, campaign: Campaign, directory: DataDirectory) -> None:
    """The report in the terminal, and in files if the campaign succeeded."""
    from services.local.commands.report import write_text
    from services.local.rendering import show_report
    from services.local.report.content import campaign_content
    from services.local.report.markdown import markdown
    from services.local.report.plot import plot

    content = campaign_content(gateway, campaign.id)
    show_report(console, content)
    if campaign.status != "succeeded":
        return
    write_text(directory.root / "report.json", json.dumps(content, indent=2))
    write_text(directory.root / "report.md", markdown(content))
    plot(content, directory.root / "report.png")
    place = os.path.relpath(directory.root)
    console.print(f"written: {place}/report.json, report.md, report.png", highlight=False)
