r"""Write arithmetic questions with worked solutions as NDJSON: `python examples/questions/arithmetic.py --out questions.ndjson`.

The sums come from reasoning-gym (chain_sum, and basic_arithmetic with products when asked for); the worked solution is one step a
line, ending in `\boxed{}`. The same options and seed write the same bytes, and no question occurs twice, in one split or across.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from shared.trajectories.domains.arithmetic import solve


@dataclass(frozen=True, slots=True)
class Sums:
    """Which sums are asked: number of terms and digits of each operand; `product_share` of them may contain `*`."""

    min_terms: int = 2
    max_terms: int = 4
    min_digits: int = 1
    max_digits: int = 2
    product_share: float = 0.0


def questions(count: int, eval_count: int, seed: int, sums: Sums) -> Iterator[dict[str, str]]:
    """`count` training and then `eval_count` held-out questions, all different.

    Raises ValueError when the options do not allow that many different questions.
    """
    seen: set[str] = set()
    for expression, answer in _expressions(seed, sums):
        if expression not in seen:
            text = f"Calculate {expression}."
            solution = solve(text)
            if solution is None or not solution.endswith(f"\\boxed{{{answer}}}"):
                raise ValueError(f"worked solution of {expression!r} does not reach {answer}")
            seen.add(expression)
            split = "eval" if len(seen) <= eval_count else "train"
            yield {
                "question": text,
                "answer": answer,
                "solution": solution,
                "kind": "numeric",
                "split": split,
                "domain": "arithmetic",
            }
        if len(seen) == count + eval_count:
            return
    raise ValueError(f"only {len(seen)} different questions with these options, {count + eval_count} are needed")


def _expressions(seed: int, sums: Sums, draws: int = 200_000) -> Iterator[tuple[str, str]]:
    """Expressions without spaces and their values, at most `draws` of them, in an order fixed by the seed."""
    from random import Random

    import reasoning_gym

    limits = {key: value for key, value in asdict(sums).items() if key != "product_share"}
    chain = reasoning_gym.create_dataset("chain_sum", seed=seed, size=draws, **limits)
    products = reasoning_gym.create_dataset(
        "basic_arithmetic", seed=seed, size=draws, operators=("+", "-", "*"), allow_parentheses=False, **limits
    )
    rng = Random(seed)
    for index in range(draws):
        item = (products if rng.random() < sums.product_share else chain)[index]
        yield item["metadata"]["expression"].replace(" ", ""), item["answer"]


def main(
    out: Annotated[Path | None, typer.Option(help="File to write; standard output if left out.")] = None,
    count: Annotated[int, typer.Option(help="Training questions.", min=0)] = 6000,
    eval_count: Annotated[int, typer.Option(help="Held-out questions (split eval).", min=0)] = 600,
    seed: Annotated[int, typer.Option(help="Seed of the questions.")] = 0,
    min_terms: Annotated[int, typer.Option(min=2)] = 2,
    max_terms: Annotated[int, typer.Option(min=2)] = 4,
    min_digits: Annotated[int, typer.Option(min=1)] = 1,
    max_digits: Annotated[int, typer.Option(min=1)] = 2,
    product_share: Annotated[float, typer.Option(help="Share of questions that may contain *.", min=0, max=1)] = 0.0,
) -> None:
    """Write multi-step integer arithmetic questions from reasoning-gym as NDJSON."""
    sums = Sums(min_terms, max_terms, min_digits, max_digits, product_share)
    try:
        lines = [json.dumps(question) for question in questions(count, eval_count, seed, sums)]
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    text = "".join(f"{line}\n" for line in lines)
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
