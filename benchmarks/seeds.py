"""One seed of teaches.py: a campaign by a demo's recipe in a data directory of its own, and then the other methods beside it.

What was measured is in the directory's `teaches.json`, written after every policy; what is there is not measured again. A killed seed goes
on where it was.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import tomlkit
import typer
from rich.console import Console

from benchmarks import methods, policies
from benchmarks.votes import vote_accuracy
from benchmarks.work import Work, work_of
from examples.demos import RECIPES, Demo
from services.local.client import Gateway
from services.local.commands.connection import api_key
from services.local.commands.demo import run_campaign, running_stack, write_questions
from services.local.directory import DataDirectory
from shared.contracts.campaigns import CampaignStatus
from shared.contracts.recipe import Recipe

FILE = "teaches.json"


@dataclass
class Seed:
    """What is known of a seed. `recipe`: of its campaign. `rows`: of each policy, as `policies.row`.

    `votes`: of each policy without verification, its mean `tokens` an answer and its `accuracy` by how many answers vote, from 1.
    """

    seed: int
    recipe: dict[str, Any]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    votes: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to measure."""
        return set(self.rows) >= set(methods.NAMES) and set(self.votes) >= set(methods.WITHOUT_VERIFICATION)


def measured(name: str, seed: int, changes: Mapping[str, Any], root: Path, console: Console) -> Seed:
    """A seed of the demo `name` with these keys of its recipe (`section.key`) changed, all of it measured.

    Raises: BadParameter when the directory has figures of another recipe; LocalError when the campaign cannot go on.
    """
    directory = DataDirectory.at(root / f"{name}-seed{seed}")
    directory.create()
    demo = _changed_demo(RECIPES[name], changes, directory)
    path, recipe = directory.root / FILE, resolved_recipe(demo.recipe, seed)
    known = known_figures(path, seed, recipe)
    if not known.is_complete:
        campaign_name = f"{name}-seed{seed}"
        questions = write_questions(directory, demo, campaign_name, seed)
        with (
            running_stack(console, directory, demo, seed) as state,
            Gateway(state.urls["gateway"], api_key(directory)) as gateway,
        ):
            campaign = run_campaign(console, directory, gateway, demo, campaign_name, seed, questions)
            if campaign.status is not CampaignStatus.SUCCEEDED:
                raise RuntimeError(f"The campaign {campaign.name} is {campaign.status}: {campaign.message}")

            def say(words: str) -> None:
                console.print(f"seed {seed}, {words}", highlight=False, soft_wrap=True)

            async def work_on() -> None:
                async with work_of(directory, state, campaign, say) as work:
                    await _measure(work, known, lambda: path.write_text(json.dumps(asdict(known), indent=1)))

            asyncio.run(work_on())
    return known


async def _measure(work: Work, known: Seed, save: Callable[[], object]) -> None:
    for name, stage in methods.OF_CAMPAIGN.items():
        known.rows[name] = policies.row((await work.metrics_of(stage)).overall)
    save()
    async for name, policy in methods.policies(work):
        if name not in known.rows:
            known.rows[name] = policies.row((await methods.evaluated(work, name, policy)).overall)
            save()
        if name in methods.WITHOUT_VERIFICATION and name not in known.votes:
            ballots, tokens = await methods.ballots(work, name, policy)
            accuracy = [vote_accuracy(ballots, voters) for voters in range(1, methods.VOTERS + 1)]
            known.votes[name] = {"tokens": tokens, "accuracy": accuracy}
            save()


def _changed_demo(demo: Demo, changes: Mapping[str, Any], directory: DataDirectory) -> Demo:
    """The demo with a recipe of its own, written beside its data."""
    document = tomlkit.parse(demo.recipe.read_text(encoding="utf-8"))
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        table = document.setdefault(section, tomlkit.table()) if section else document
        table[name] = value
    path = directory.root / demo.recipe.name
    path.write_text(tomlkit.dumps(document), encoding="utf-8")
    return replace(demo, recipe=path)


def resolved_recipe(path: Path, seed: int) -> Recipe:
    """A recipe file with this seed, every key at its value or its default."""
    content = tomlkit.parse(path.read_text(encoding="utf-8")).unwrap() | {"seed": seed}
    return Recipe.model_validate({key: value for key, value in content.items() if key != "name"})


def known_figures(path: Path, seed: int, recipe: Recipe) -> Seed:
    """What a file has, or nothing yet. Raises: BadParameter when it is of another recipe."""
    wanted = recipe.model_dump(mode="json")
    if not path.exists():
        return Seed(seed, wanted)
    known = Seed(**json.loads(path.read_text()))
    if _what_is_learned(known.recipe) != _what_is_learned(wanted):
        raise typer.BadParameter(
            f"{path.parent} holds figures of another recipe: move it away, or name another --directory."
        )
    return known


def _what_is_learned(recipe: Mapping[str, Any]) -> Recipe:
    """The recipe but for how often it is saved, which only says how much work a crash costs."""
    excluded = {section: {"checkpoint_every_steps"} for section in ("sft0", "sft1", "rl")}
    return Recipe.model_validate(Recipe.model_validate(recipe).model_dump(exclude=excluded))
