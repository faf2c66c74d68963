"""A campaign of the tiny model up to the first step of RL, made once and kept; each RL run goes on from a copy of it.

All of it is what a user has: `headwater up` with every process, a campaign, its run paused and resumed by the gateway. A data directory
is at the same place whenever it runs, because policies are known by where their files are.
"""

import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from examples.demos import RECIPES
from services.local import stack
from services.local.client import Gateway, UnreachableError
from services.local.directory import DataDirectory
from services.local.state import StackState
from shared.contracts.campaigns import Campaign, CampaignIn, CampaignStatus, StageName
from shared.contracts.recipe import Recipe

NAME = "faults"
EVAL_QUESTIONS = 600
QUESTIONS = f"examples.questions.arithmetic --count 1400 --eval-count {EVAL_QUESTIONS} --max-digits 1 --min-terms 3 --max-terms 5"
STEPS = 40
CHECKPOINT_EVERY_STEPS = 2
_SHORTER: dict[str, Any] = {
    "minimum_train_questions": 1400,
    "minimum_eval_questions": EVAL_QUESTIONS,
    "probe": {"k": 4, "fraction": 0.1},
    "reprobe": {"k": 4, "fraction": 0.02},
    "sft0": {"steps": 260},
    "sft1": {"steps": 60},
    "rl": {"steps": STEPS, "groups_per_step": 8, "checkpoint_every_steps": CHECKPOINT_EVERY_STEPS},
}
DEADLINE_S = 7200.0
POLL_S = 1.0


@dataclass(frozen=True)
class Running:
    """A stack that is up, with its campaign."""

    directory: DataDirectory

    @property
    def state(self) -> StackState:
        """What the supervisor last said. Raises: RuntimeError when it is no more."""
        state = stack.running(self.directory)
        if state is None:
            raise RuntimeError(f"Headwater on {self.directory.root} has ended; its log says why.")
        return state

    def campaign(self) -> Campaign | None:
        """The campaign, or None while the gateway does not answer."""
        with suppress(UnreachableError), self.gateway() as gateway:
            return gateway.campaign(NAME)
        return None

    def gateway(self) -> Gateway:
        """A connection with the first API key."""
        return Gateway(self.state.urls["gateway"], self.directory.api_key.read_text().strip())

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """The JSON that the gateway answers. Raises: HTTPError."""
        headers = {"Authorization": f"Bearer {self.directory.api_key.read_text().strip()}"}
        url = self.state.urls["gateway"] + path
        answer = httpx.request(method, url, headers=headers, timeout=60, trust_env=False, **request)
        return answer.raise_for_status().json()

    def until(self, what: str, reached: Callable[[], bool]) -> None:
        """Look every second. Raises: RuntimeError when the campaign fails, or nothing of the kind comes in DEADLINE_S."""
        until = time.monotonic() + DEADLINE_S
        while not reached():
            campaign = self.campaign()
            if campaign is not None and campaign.status in (CampaignStatus.FAILED, CampaignStatus.CANCELLED):
                raise RuntimeError(f"The campaign is {campaign.status}: {campaign.message}")
            if time.monotonic() > until:
                raise RuntimeError(f"{what} did not come in {DEADLINE_S:.0f} s.")
            time.sleep(POLL_S)


def recipe(seed: int) -> Recipe:
    """The demo's tiny recipe, shorter."""
    content = tomllib.loads(RECIPES["tiny"].recipe.read_text()) | {"seed": seed}
    content.pop("name")
    shorter = {name: content[name] | value if isinstance(value, dict) else value for name, value in _SHORTER.items()}
    return Recipe.model_validate(content | shorter)


@contextmanager
def up(directory: Path) -> Iterator[Running]:
    """Everything of `headwater up` on a data directory until the block ends."""
    data = DataDirectory.at(directory)
    supervisor = stack.start_detached(stack.UpOptions(data, "tiny"), ends_with_me=True)
    try:
        stack.wait_until_running(data, supervisor, lambda _: None)
        yield Running(data)
    finally:
        stack.stop_detached(data, supervisor)


def prepare(home: Path, seed: int) -> None:
    """Make `home/start`, unless it is there: a data directory whose campaign stands at a paused RL run."""
    if (home / "start").exists():
        return
    home.mkdir(parents=True, exist_ok=True)
    questions = home / "questions.ndjson"
    if not questions.exists():
        make = [sys.executable, "-m", *QUESTIONS.split(), "--seed", str(seed), "--out", str(questions)]
        subprocess.run(make, check=True, stdout=sys.stderr)
    with up(home / "stack") as running:
        campaign = CampaignIn(name=NAME, recipe=recipe(seed)).model_dump(mode="json")
        campaign_id = UUID(running.ask("POST", "/v1/campaigns", json=campaign)["id"])
        with running.gateway() as gateway:
            for _ in gateway.submit(questions, campaign_id):
                pass
        running.until("The RL run", lambda: run_id(running.campaign()) is not None)
        paused = f"/v1/runs/{run_id(running.campaign())}"
        running.ask("POST", f"{paused}/pause")
        running.until("The pause", lambda: running.ask("GET", paused)["state"] == "paused")
    (home / "stack").rename(home / "start")


@contextmanager
def copy_of_start(home: Path, kept_as: str) -> Iterator[Running]:
    """The stack on a new copy of the start; afterwards the copy is kept under this name."""
    for name in ("stack", kept_as):
        shutil.rmtree(home / name, ignore_errors=True)
    shutil.copytree(home / "start", home / "stack", symlinks=True)
    with up(home / "stack") as running:
        yield running
    (home / "stack").rename(home / kept_as)


def run_id(campaign: Campaign | None) -> UUID | None:
    """The campaign's RL run, once it is ordered."""
    stages = () if campaign is None else campaign.stages
    return next((stage.run_id for stage in stages if stage.name is StageName.RL), None)
