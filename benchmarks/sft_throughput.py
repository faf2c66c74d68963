"""Tokens a second of SFT: our trainer, and ours with packing, beside TRL's `SFTTrainer` as it comes, on the same trajectories.

The same model, rows, micro-batches, optimiser, schedule and threads; none of them writes a checkpoint. A token counts when it is of a
trajectory and not padding. Ours is a leased run in a real database and reports as it does in a campaign. In turns, in this process;
every turn begins with a new model, and its first steps warm up.
"""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import servers
from benchmarks.result import Result
from services.training.execute import leave_vllm_out

TARGETS = {"ours": 1.0, "ours, packed": 1.3}
PLAIN = "TRL"


def rates(steps: Sequence[tuple[float, float, int]]) -> tuple[float, float]:
    """Tokens a second of steps, and a processor second."""
    seconds, processor_s, tokens = map(sum, zip(*steps, strict=True))
    return tokens / seconds, tokens / processor_s


@dataclass(frozen=True)
class Contest:
    """What every turn has in common."""

    model: Path
    rows: Any
    recipe: Any
    settings: Any
    scratch: Path
    warm_up: int

    def trl(self) -> tuple[float, float]:
        """Tokens a second of TRL's trainer."""
        from datasets import Dataset
        from transformers import PrinterCallback
        from trl import SFTConfig, SFTTrainer

        from benchmarks.trainers import Clock, run_of, start_at
        from services.training.loop import trainer_arguments
        from services.training.policies import load

        recipe, loaded = self.recipe, load(start_at(self.model), None, bf16=False, kl=False, seed=0)
        micro = recipe.micro_batch_size or recipe.batch_size
        arguments = SFTConfig(
            **trainer_arguments(run_of(recipe), recipe, self.scratch / "trl", recipe.batch_size, micro),
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        trainer = SFTTrainer(
            model=loaded.model,
            args=arguments,
            train_dataset=Dataset.from_dict({"input_ids": self.rows.input_ids, "labels": self.rows.labels}),
            processing_class=loaded.tokenizer,
        )
        clock = Clock(lambda: int(trainer._total_train_tokens))  # noqa: SLF001  its own count of the same tokens
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock)
        trainer.train()
        return rates(clock.steps(self.warm_up))

    def ours(self, *, packing: bool) -> tuple[float, float]:
        """Tokens a second of ours."""
        from benchmarks.trainers import Clock, attempt, run_of, start_at
        from services.training.policies import load
        from services.training.sft.trainer import make_sft_trainer

        recipe = self.recipe.model_copy(update={"packing": packing})
        run = run_of(recipe)
        loaded = load(start_at(self.model), None, bf16=False, kl=False, seed=0)
        with attempt(run, self.model, self.settings, self.scratch) as own:
            trainer = make_sft_trainer(run, recipe, loaded, self.rows, own.store.staging)
            trainer.follow(own, self.recipe.checkpoint_every_steps)
            clock = Clock(lambda: own.tokens)
            trainer.add_callback(clock)
            trainer.train()
        return rates(clock.steps(self.warm_up))


def main(
    model: Annotated[str, typer.Option(help="tiny, or a directory.")] = "tiny",
    steps: Annotated[int, typer.Option(min=2, help="Measured steps a turn.")] = 25,
    warm_up: Annotated[int, typer.Option(min=1, help="Steps before them.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    micro_batch_size: Annotated[int, typer.Option(min=0, help="0: the whole batch.")] = 0,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON a claim.")] = False,
) -> None:
    """Tokens a second of our SFT and of TRL's."""
    leave_vllm_out()
    import torch
    import transformers

    from benchmarks.trainers import model_directory, start_at, trajectories
    from services.training.policies import load
    from services.training.settings import TrainingSettings
    from services.training.sft.rows import tokenise_rows
    from shared.contracts.recipe import SftRecipe

    torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    recipe = SftRecipe(steps=warm_up + steps, batch_size=batch_size, micro_batch_size=micro_batch_size, max_tokens=480)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-benchmark-")))
        settings = TrainingSettings(database_url=stack.enter_context(servers.database()))
        directory = model_directory(model, scratch)
        tokenizer = load(start_at(directory), None, bf16=False, kl=False, seed=0).tokenizer
        rows = tokenise_rows(trajectories(batch_size * (warm_up + steps), 0), tokenizer, recipe.max_tokens)
        contest = Contest(directory, rows, recipe, settings, scratch, warm_up)
        ways: dict[str, Callable[[], tuple[float, float]]] = {
            PLAIN: contest.trl,
            "ours": lambda: contest.ours(packing=False),
            "ours, packed": lambda: contest.ours(packing=True),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for number in range(rounds):
            for name in list(ways)[::-1] if number % 2 else list(ways):
                found[name].append(ways[name]())
    lengths = [len(ids) for ids in rows.input_ids]
    table = Table(
        "trainer", "tokens/s", "lowest", "highest", "× TRL", "a processor second", "× TRL",
        title=f"{model}: {batch_size} of {len(lengths)} rows a step, {min(lengths)}–{max(lengths)} tokens each, "
        f"{statistics.mean(lengths):.0f} in the mean; {threads} threads, {rounds} turns",
    )  # fmt: skip
    medians = {name: statistics.median(rate for rate, _ in of_name) for name, of_name in found.items()}
    processor = {name: statistics.median(rate for _, rate in of_name) for name, of_name in found.items()}
    for name, of_name in found.items():
        figures = (medians[name], min(of_name)[0], max(of_name)[0])
        ratios = (medians[name] / medians[PLAIN], processor[name] / processor[PLAIN])
        words = [f"{figure:,.0f}" for figure in figures]
        table.add_row(name, *words, f"{ratios[0]:.2f}", f"{processor[name]:,.0f}", f"{ratios[1]:.2f}")
    Console(width=140).print(table)
    if as_json:
        for name, value in (("sft_throughput", "ours"), ("sft_throughput_packed", "ours, packed")):
            typer.echo(Result(name, medians[value], "tokens/s", medians[PLAIN], rounds).line())
    raise typer.Exit(int(any(medians[name] < target * medians[PLAIN] for name, target in TARGETS.items())))


if __name__ == "__main__":
    typer.run(main)
