"""How much sooner is RL over when rollouts go on while the trainer steps? A run as it is by default, beside one with `rl.sync`.

Everything is real but the engine: Postgres with fsync, Valkey, the pool, generation, verification, a sampling worker, and the trainer in
a process of its own, which trains, writes checkpoints and publishes an adapter every step. The engine (`slow_engine`) sleeps: its
answers are long-tailed, and it has a seat for each answer of a step, so that neither way has more of it. How long they take is settled by a
first run on an engine that does not sleep: the slowest answer of a step takes about what the trainer's step took there.

Both ways train the same number of steps; the clock runs from the end of the first step to the end of the last. In turns.
"""

import asyncio
import math
import os
import random
import socket
import statistics
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import servers
from benchmarks.result import Result
from services.local import engine, valkey
from services.training import service
from services.training.attempt import attempt_run
from services.training.settings import TrainingSettings
from services.training.tiny import make_tiny_model
from shared.artifacts import hash_directory
from shared.contracts.policies import Policy
from shared.contracts.recipe import LoraRecipe, RlRecipe
from shared.contracts.runs import RunIn, RunMethod, RunMetric, RunState
from shared.db import Database

TARGET = 1.6
SIGMA = 1.0
QUESTIONS = 512


@dataclass(frozen=True)
class Timed:
    """What a run's logged points say: seconds from its first step to its last, and by step what is named."""

    seconds: float
    waits_s: list[float]
    staleness: list[float]
    dropped: float

    @property
    def step_s(self) -> float:
        """Seconds of a step without the waiting for its batch."""
        return self.seconds / len(self.waits_s) - statistics.mean(self.waits_s)


def timed(points: Sequence[RunMetric]) -> Timed:
    """Of the logged points of a run, the first step being where the clock begins."""
    steps = [point for point in points if point.step > 0]
    of_steps = [point.values for point in steps[1:]]
    return Timed(
        (steps[-1].at - steps[0].at).total_seconds(),
        [values["wait_s"] for values in of_steps],
        [values["staleness_mean"] for values in of_steps],
        sum(values["dropped_stale"] for values in of_steps),
    )


def slowest_of(answers: int, sigma: float) -> float:
    """The mean of the slowest of so many log-normal times of median 1, by 2,000 draws."""
    draw = random.Random(0)
    return statistics.mean(math.exp(sigma * max(draw.gauss(0, 1) for _ in range(answers))) for _ in range(2000))


class Contest:
    """The services of one benchmark, and runs on them."""

    def __init__(self, addresses: dict[str, str], model: Path, settings: TrainingSettings, recipe: RlRecipe) -> None:
        self._addresses, self._model, self._settings, self._recipe = addresses, model, settings, recipe

    def answer_in(self, median_s: float) -> None:
        """Set the engine's latency."""
        httpx.put(f"{self._addresses['engine']}/latency", json={"median_s": median_s}, trust_env=False)

    async def run(self, *, sync: bool, steps: int) -> Timed:
        """One run of a campaign of its own, to its end. Raises: RuntimeError when it does not succeed."""
        campaign = uuid4()
        recipe = self._recipe.model_copy(update={"sync": sync, "steps": steps})
        headers = {"X-Headwater-Service-Token": servers.TOKEN}
        async with httpx.AsyncClient(headers=headers, timeout=600, trust_env=False) as http:
            policy = await self._register(http, campaign)
            order_id = await self._order(http, campaign, policy, recipe)
            run = RunIn(
                campaign_id=campaign,
                key="rl",
                method=RunMethod.RL,
                start_policy_id=policy.id,
                order_id=order_id,
                rl=recipe,
                publish_name="rl",
                first_version=1,
            )
            points = await self._train(run)
            (await http.post(f"{self._addresses['pool']}/v1/orders/{order_id}/close")).raise_for_status()
        return timed(points)

    async def _register(self, http: httpx.AsyncClient, campaign: UUID) -> Policy:
        url = f"{self._addresses['generation']}/v1/policies"
        content_hash = await asyncio.to_thread(hash_directory, self._model)
        body = {"campaign_id": str(campaign), "name": "base", "kind": "base", "uri": str(self._model)}
        answer = (await http.post(url, json=body | {"content_hash": content_hash})).raise_for_status()
        policy = Policy.model_validate_json(answer.content)
        (await http.post(f"{url}/{policy.id}/live")).raise_for_status()
        return policy

    async def _order(self, http: httpx.AsyncClient, campaign: UUID, policy: Policy, recipe: RlRecipe) -> UUID:
        """The standing order that a campaign makes for this recipe."""
        pool = self._addresses["pool"]
        settings: dict[str, Any] = {"name": "benchmark", "router": {}}
        (await http.put(f"{pool}/v1/campaigns/{campaign}/settings", json=settings)).raise_for_status()
        draw = random.Random(0)
        sums = [[draw.randrange(1, 10) for _ in range(4)] for _ in range(2 * QUESTIONS)]
        asked = [
            {"question": f"Calculate {'+'.join(map(str, terms))}.", "answer": str(sum(terms)), "kind": "numeric"}
            for terms in sums
        ]
        query = {"campaign": str(campaign)}
        (await http.post(f"{pool}/v1/questions", params=query, json=asked)).raise_for_status()
        order = {"campaign_id": str(campaign), "key": "rl", "purpose": "rollout", "k": recipe.k}
        order |= {"policy_id": str(policy.id), "policy_version": 0, "sampling": {"temperature": 1.0, "max_tokens": 256}}
        order |= {"watermark_groups": recipe.groups_ahead}
        order |= {"on_demand": recipe.sync}
        return UUID((await http.post(f"{pool}/v1/orders", json=order)).raise_for_status().json()["id"])

    async def _train(self, run: RunIn) -> tuple[RunMetric, ...]:
        """The run's logged points."""
        database = Database(self._settings.database_url, pool_size=1)
        try:
            async with database.transaction() as session:
                created, _ = await service.create_run(session, run)
            await attempt_run(created.id, self._settings, "benchmark", threading.Event())
            async with database.transaction() as session:
                ended = await service.get_run(session, created.id)
                points = await service.list_metrics(session, created.id, 0, 10_000)
        finally:
            await database.close()
        if ended.state is not RunState.SUCCEEDED:
            raise RuntimeError(f"the run is {ended.state}: {ended.message}")
        return points


def started(stack: ExitStack, scratch: Path, seats: int, threads: int) -> tuple[dict[str, str], Path]:
    """Everything a run needs but the trainer, which finds it in this process's environment; the addresses and the model."""
    model = scratch / "tiny"
    make_tiny_model(model)
    database_url, port = stack.enter_context(servers.database()), servers.free_port()
    (scratch / "valkey").mkdir()
    stack.enter_context(
        servers.process(
            valkey.command(scratch / "valkey", port),
            SIGTERM,
            lambda: _listens(port),
            words=scratch / "valkey.log",
        )
    )
    os.environ.update(
        {
            "HEADWATER_DATABASE_URL": database_url,
            "HEADWATER_REDIS_URL": valkey.url(port),
            "HEADWATER_SERVICE_TOKEN": servers.TOKEN,
            "HEADWATER_ARTIFACTS_URL": str(scratch / "artifacts"),
            "HEADWATER_ENGINE_MODEL": str(model),
            "HEADWATER_WEIGHTS_CACHE": str(scratch / "weights"),
            "HEADWATER_SLOW_SEATS": str(seats),
            "HEADWATER_SLOW_SIGMA": str(SIGMA),
            "HEADWATER_TRAINING_THREADS": str(threads),
            **engine.OFFLINE,
        }
    )
    addresses = {}
    for name, app, ready in (
        ("engine", "benchmarks.slow_engine:create_app", "/health"),
        ("pool", "services.pool.main:create_app", "/health/ready"),
        ("generation", "services.generation.main:create_app", "/health/ready"),
        ("verification", "services.verification.main:create_app", "/health/ready"),
    ):
        addresses[name] = stack.enter_context(servers.api(app, ready, {}))
        os.environ["HEADWATER_ENGINE_URLS" if name == "engine" else f"HEADWATER_{name.upper()}_URL"] = addresses[name]
    return addresses, model


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def worker(scratch: Path) -> AbstractContextManager[None]:
    """A sampling worker. Hints that come before it is ready wait for it."""
    command = (sys.executable, "-m", "celery", "-A", "services.sampling.tasks:celery", "worker", "-Q", "sampling")
    options = ("-c", "1", "--without-gossip", "--without-mingle", "--loglevel", "WARNING")
    return servers.process((*command, *options), SIGTERM, lambda: True, words=scratch / "sampling.log")


def main(
    steps: Annotated[int, typer.Option(min=3, help="Steps a run; the clock begins after the first.")] = 13,
    groups: Annotated[int, typer.Option(min=1, help="Groups of 8 a step.")] = 8,
    latency: Annotated[float, typer.Option(min=0, help="The slowest answer of a step, in steps of the trainer.")] = 1.0,
    threads: Annotated[int, typer.Option(min=1, help="The trainer's; the other core is for the services.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Seconds of RL with rollouts made ahead and with rollouts made in turns with the steps."""
    recipe = RlRecipe(
        lora=LoraRecipe(rank=8, alpha=16),
        k=8,
        groups_per_step=groups,
        micro_batch_size=min(32, 8 * groups),
        learning_rate=1e-5,
        kl_beta=0.0,
        publish_every_steps=1,
        max_staleness=2,
        watermark_groups=2 * groups,
    )
    runs: dict[str, list[Timed]] = {"sync": [], "async": []}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-benchmark-")))
        addresses, model = started(stack, scratch, seats=groups * recipe.k, threads=threads)
        stack.enter_context(worker(scratch))
        contest = Contest(addresses, model, TrainingSettings(), recipe)
        first = asyncio.run(contest.run(sync=True, steps=5))
        slowest_s = latency * first.step_s
        contest.answer_in(slowest_s / slowest_of(groups * recipe.k, SIGMA))
        for number in range(rounds):
            for name in list(runs)[::-1] if number % 2 else list(runs):
                runs[name].append(asyncio.run(contest.run(sync=name == "sync", steps=steps)))
    seconds = {name: statistics.median(run.seconds for run in of_name) for name, of_name in runs.items()}
    title = (
        f"{steps - 1} steps of {groups} × {recipe.k} answers, {rounds} runs each; a step of the trainer without an engine "
        f"{first.step_s:.2f} s, the slowest answer of a step {slowest_s:.2f} s in the mean"
    )
    table = Table("", "seconds", "waiting a step, s", "staleness, mean", "groups dropped", "× sync", title=title)
    for name, of_name in runs.items():
        table.add_row(
            name,
            f"{seconds[name]:.1f}",
            f"{statistics.mean(wait for run in of_name for wait in run.waits_s):.2f}",
            f"{statistics.mean(behind for run in of_name for behind in run.staleness):.2f}",
            f"{sum(run.dropped for run in of_name):.0f}",
            f"{seconds['sync'] / seconds[name]:.2f}",
        )
    Console(width=140).print(table)
    if as_json:
        rates = [(steps - 1) / seconds[name] for name in ("async", "sync")]
        typer.echo(Result("async_rl", rates[0], "steps/s", rates[1], rounds).line())
    raise typer.Exit(int(seconds["sync"] < TARGET * seconds["async"]))


if __name__ == "__main__":
    typer.run(main)
