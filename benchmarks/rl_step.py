"""Seconds of an RL step: our trainer on groups leased from a real pool, beside TRL's `GRPOTrainer` on the same groups, given.

The same model, tokens, micro-batches, optimiser and threads, and as many passes: TRL corrects for the given log-probabilities, as ours
does, and computes none anew. In turns, in this process; every turn begins with a new model, and its first steps warm up.

Ours includes the hand-over: the lease of each batch through the pool's API on a Postgres with fsync, reading it, and making tensors of
it; its seconds are taken apart, too. How large its share is depends on the model: a larger one has longer steps and the same hand-over.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import httpx
import numpy as np
import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from benchmarks import rollouts, servers
from benchmarks.result import Result
from services.training.execute import leave_vllm_out
from shared import arrow
from shared.arrow import hand_in
from shared.packed import PackedGroupIn

LONGER = 1.05
HANDOVER_SHARE = 0.02
QUESTIONS = 256


@dataclass
class Contest:
    """What every turn has in common, and the seconds taken so far."""

    model: Path
    groups: Any
    recipe: Any
    settings: Any
    scratch: Path
    warm_up: int
    trl_steps: list[Any] = field(default_factory=list)
    our_steps: list[Any] = field(default_factory=list)
    handover_s: list[float] = field(default_factory=list)

    def trl(self) -> None:
        """Steps of TRL's trainer."""
        from transformers import PrinterCallback

        from benchmarks.given_trl import make_given_trainer
        from benchmarks.trainers import Clock, run_of, start_at
        from services.training.policies import load

        loaded = load(start_at(self.model), None, bf16=False, kl=False, seed=0)
        trainer = make_given_trainer(run_of(self.recipe), self.recipe, loaded, self.groups, self.scratch / "trl")
        clock = Clock(lambda: 0)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock)
        trainer.train()
        self.trl_steps += clock.steps(self.warm_up)

    def ours(self, order_id: UUID) -> None:
        """Steps of ours, on what waits in the pool."""
        from benchmarks.trainers import Clock, attempt, run_of, start_at
        from services.training.policies import load
        from services.training.rl.advantages import BatchBaseline
        from services.training.rl.source import BatchSource
        from services.training.rl.trainer import make_rl_trainer

        run = run_of(self.recipe, order_id)
        loaded = load(start_at(self.model), None, bf16=False, kl=False, seed=0)
        with attempt(run, self.model, self.settings, self.scratch) as own:
            trainer: Any = make_rl_trainer(run, self.recipe, loaded, own.store.staging)
            trainer.source = BatchSource(own.lease, order_id, self.recipe, 1, own.give_up_step)
            trainer.baseline = BatchBaseline()
            trainer.follow(own, self.recipe.checkpoint_every_steps)
            clock, handover_s = Clock(lambda: own.tokens), list[float]()
            trainer.add_callback(clock)
            hand_over = trainer._generate_and_score_completions  # noqa: SLF001  the step's batch as tensors

            def timed(inputs: Any) -> Any:
                started = time.perf_counter()
                tensors = hand_over(inputs)
                handover_s.append(time.perf_counter() - started)
                return tensors

            trainer._generate_and_score_completions = timed  # noqa: SLF001
            trainer.train()
        self.our_steps += clock.steps(self.warm_up)
        self.handover_s += handover_s[self.warm_up :]


async def fill(pool: httpx.AsyncClient, groups: Any, steps: int) -> UUID:
    """A standing order in the pool with these groups waiting, once a step."""
    order = await rollouts.standing_order(pool, QUESTIONS, steps * len(groups))
    for _ in range(steps):
        made = [
            PackedGroupIn(
                UUID(assignment["id"]),
                UUID(assignment["lease_token"]),
                UUID(assignment["policy_id"]),
                np.array(group[0].prompt_ids, np.int32).tobytes(),
                tuple(response.packed() for response in group),
            )
            for assignment, group in zip(await rollouts.claim(pool, len(groups)), groups, strict=True)
        ]
        body, headers = bytes(hand_in.write(made)), {"Content-Type": arrow.MEDIA_TYPE}
        (await pool.post("/v1/groups", content=body, headers=headers)).raise_for_status()
    return UUID(order)


def main(
    model: Annotated[str, typer.Option(help="tiny, or a directory.")] = "tiny",
    steps: Annotated[int, typer.Option(min=1, help="Measured steps a turn.")] = 6,
    warm_up: Annotated[int, typer.Option(min=1, help="Steps before them.")] = 2,
    groups: Annotated[int, typer.Option(min=1, help="Groups of 8 a step.")] = 16,
    micro_batch_size: Annotated[int, typer.Option(min=0, help="Responses at once; 0: all of a step.")] = 32,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON a claim.")] = False,
) -> None:
    """Seconds of our RL step and of TRL's, and what of ours is the hand-over."""
    leave_vllm_out()
    import torch
    import transformers

    from benchmarks.given_groups import make_groups
    from benchmarks.trainers import model_directory, start_at
    from services.training.policies import load
    from services.training.settings import TrainingSettings
    from shared.contracts.recipe import RlRecipe

    torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    # No publishing, so that the staleness of what waits stays 0.
    recipe = RlRecipe(
        steps=warm_up + steps,
        k=rollouts.K,
        groups_per_step=groups,
        micro_batch_size=micro_batch_size,
        watermark_groups=groups,
        learning_rate=1e-5,
        kl_beta=0.0,
        publish_every_steps=warm_up + steps,
    )
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-benchmark-")))
        database_url = stack.enter_context(servers.database())
        pool = stack.enter_context(servers.pool_api(database_url))
        settings = TrainingSettings(
            database_url=database_url, pool_url=str(pool.base_url), service_token=SecretStr(servers.TOKEN)
        )
        directory = model_directory(model, scratch)
        loaded = load(start_at(directory), None, bf16=False, kl=False, seed=0)
        given = make_groups(groups, recipe.k, loaded.model, loaded.tokenizer)
        contest = Contest(directory, given, recipe, settings, scratch, warm_up)
        runner = stack.enter_context(asyncio.Runner())
        for number in range(rounds):
            order_id = runner.run(fill(pool, given, recipe.steps))
            turns: list[Callable[[], None]] = [contest.trl, partial(contest.ours, order_id)]
            for turn in turns[::-1] if number % 2 else turns:
                turn()
        runner.run(pool.aclose())
    lengths = [len(response.prompt_ids) + len(response.token_ids) for group in given for response in group]
    table = Table(
        "", "ms", "shortest", "longest", "ratio", "processor ms", "ratio",
        title=f"{model}: {len(lengths)} responses a step of {min(lengths)}–{max(lengths)} tokens, mean {statistics.mean(lengths):.0f}; "
        f"micro-batches of {micro_batch_size or len(lengths)}, {threads} threads, {len(contest.our_steps)} steps each",
    )  # fmt: skip
    trl_s, ours_s = (statistics.median(step.seconds for step in of) for of in (contest.trl_steps, contest.our_steps))
    busy = [statistics.median(step.processor_s for step in of) for of in (contest.trl_steps, contest.our_steps)]
    handover_s = statistics.median(contest.handover_s)
    for name, seconds, *others in (
        ("TRL's step", [step.seconds for step in contest.trl_steps], "1", f"{1000 * busy[0]:,.0f}", "1"),
        (
            *("our step", [step.seconds for step in contest.our_steps], f"{ours_s / trl_s:.3f}"),
            *(f"{1000 * busy[1]:,.0f}", f"{busy[1] / busy[0]:.3f}"),
        ),
        ("of it the hand-over", contest.handover_s, f"{100 * handover_s / ours_s:.1f} % of ours"),
    ):
        figures = (statistics.median(seconds), min(seconds), max(seconds))
        table.add_row(name, *(f"{1000 * figure:,.1f}" for figure in figures), *others)
    Console(width=140).print(table)
    if as_json:
        typer.echo(Result("rl_step", 1000 * ours_s, "ms", 1000 * trl_s, len(contest.our_steps)).line())
        typer.echo(Result("rl_handover", 1000 * handover_s, "ms", 1000 * ours_s, len(contest.handover_s)).line())
    raise typer.Exit(int(ours_s > LONGER * trl_s or handover_s > HANDOVER_SHARE * ours_s))


if __name__ == "__main__":
    typer.run(main)
