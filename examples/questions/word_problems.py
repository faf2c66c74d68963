r"""Write word problems with worked solutions as NDJSON: `python examples/questions/word_problems.py --out questions.ndjson`.

The problems are reasoning-gym's gsm_symbolic; `answer_cot` is the worked solution, with the final answer put in `\boxed{}`.
The same options and seed write the same bytes, and no question occurs twice, in one split or across.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

INSTRUCTION = " Give the result as your final answer. Do not include units."


def questions(count: int, eval_count: int, max_solution: int | None, seed: int) -> Iterator[dict[str, str]]:
    """`eval_count` held-out and then `count` training questions, all different. Raises ValueError when there are too few.

    `max_solution`: the longest worked solution, in characters; few templates have short ones.
    """
    import reasoning_gym

    seen: set[str] = set()
    wanted = count + eval_count
    for item in reasoning_gym.create_dataset("gsm_symbolic", seed=seed, size=20 * wanted + 100):
        if len(seen) == wanted:
            return
        text = item["question"].removesuffix(INSTRUCTION)
        working, _, final = item["metadata"]["answer_cot"].rpartition("####")
        if text in seen or not working.strip() or final.strip() != item["answer"]:
            continue
        if max_solution is not None and len(working.strip()) > max_solution:
            continue
        seen.add(text)
        yield {
            "question": text,
            "answer": item["answer"],
            "solution": f"{working.strip()}\n\\boxed{{{item['answer']}}}",
            "kind": "math",
            "split": "eval" if len(seen) <= eval_count else "train",
            "domain": "text",
        }
    if len(seen) < wanted:
        raise ValueError(f"only {len(seen)} different questions, {wanted} are needed")


def main(
    out: Annotated[Path | None, typer.Option(help="File to write; standard output if left out.")] = None,
    count: Annotated[int, typer.Option(help="Training questions.", min=0)] = 1500,
    eval_count: Annotated[int, typer.Option(help="Held-out questions (split eval).", min=0)] = 600,
    max_solution: Annotated[
        int | None, typer.Option(help="Characters of the longest worked solution; any if left out.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the questions.")] = 0,
) -> None:
    """Write word problems of reasoning-gym's gsm_symbolic as NDJSON."""
    try:
        lines = [
            json.dumps(question, ensure_ascii=False) for question in questions(count, eval_count, max_solution, seed)
        ]
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
