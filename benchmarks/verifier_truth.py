"""How often is the verifier wrong? Answers whose truth is known by construction, judged by Headwater and by bare math-verify.

A false accept is a wrong answer called correct (reinforcement learning finds those), a false reject a right one called incorrect; what
could not be judged is counted apart. Two of the forms are Headwater's own rule and not math-verify's: where the reference is a plain
number, an expression that merely evaluates to it (`unevaluated`) and several answers at once (`hedged`) are no answer.
"""

import asyncio
import logging
from collections import Counter
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.made_answers import Case, cases
from benchmarks.result import Result
from services.verification.cache import Cache
from services.verification.pool import WorkerPool
from services.verification.processes import worker_command
from services.verification.service import Verifier
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import VerdictBatch, VerdictOutcome, VerdictRequest

DEADLINE_S = 10
MEMORY_BYTES = 1 << 30
BATCH = 1000
SHOWN = 20
WIDTH = 140


async def ours(judged: list[Case]) -> list[VerdictOutcome]:
    """What the service says of each, as it works: cut, pooled, cached."""
    pool = WorkerPool(worker_command(MEMORY_BYTES), 2, DEADLINE_S)
    pool.start()
    verifier = Verifier({QuestionKind.MATH: pool}, Cache(10 * len(judged)))
    outcomes: list[VerdictOutcome] = []
    try:
        for start in range(0, len(judged), BATCH):
            items = tuple(
                VerdictRequest(
                    id=str(at), kind=QuestionKind.MATH, reference=case.reference, response=f"\\boxed{{{case.answer}}}"
                )
                for at, case in enumerate(judged[start : start + BATCH])
            )
            result = await verifier.verdicts(VerdictBatch(items=items))
            outcomes += [item.verdict.outcome for item in result.items]
    finally:
        await pool.close()
    return outcomes


def bare(case: Case) -> VerdictOutcome:
    """What math-verify says, called as its README does."""
    from math_verify import parse, verify

    gold = parse(f"\\boxed{{{case.reference}}}", parsing_timeout=DEADLINE_S)
    if not gold:
        return VerdictOutcome.UNSCORED
    answer = parse(f"\\boxed{{{case.answer}}}", parsing_timeout=DEADLINE_S)
    is_equal = verify(gold, answer, timeout_seconds=DEADLINE_S)
    return VerdictOutcome.CORRECT if is_equal else VerdictOutcome.INCORRECT


def faults(judged: list[Case], outcomes: list[VerdictOutcome]) -> Counter[tuple[str, str]]:
    """(form, `accept` | `reject` | `unscored`) → how many; with `equal` and `other` as the numbers of cases."""
    counts: Counter[tuple[str, str]] = Counter()
    for case, outcome in zip(judged, outcomes, strict=True):
        counts[case.form, "equal" if case.is_equal else "other"] += 1
        if outcome is VerdictOutcome.UNSCORED:
            counts[case.form, "unscored"] += 1
        elif (outcome is VerdictOutcome.CORRECT) != case.is_equal:
            counts[case.form, "reject" if case.is_equal else "accept"] += 1
    return counts


def main(
    count: Annotated[int, typer.Option(min=100, help="Answers to judge.")] = 4000,
    seed: Annotated[int, typer.Option()] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON a claim.")] = False,
) -> None:
    """False accepts and false rejects by form."""
    logging.disable(logging.WARNING)
    made = cases(seed)
    judged = [next(made) for _ in range(count)]
    outcomes = {"Headwater": asyncio.run(ours(judged)), "math-verify": [bare(case) for case in judged]}
    counted = {name: faults(judged, given) for name, given in outcomes.items()}
    columns = [f"{name}: {what}" for name in outcomes for what in ("false accepts", "false rejects", "unscored")]
    table = Table("form", "wrong answers", "right answers", *columns, title=f"{count:,} answers, seed {seed}")
    for form in dict.fromkeys(case.form for case in judged):
        cells = [str(counts[form, what]) for counts in counted.values() for what in ("accept", "reject", "unscored")]
        totals = counted["Headwater"]
        table.add_row(form, str(totals[form, "other"]), str(totals[form, "equal"]), *cells)
    console = Console(width=WIDTH)
    console.print(table)
    wrong = [
        (case, outcome)
        for case, outcome in zip(judged, outcomes["Headwater"], strict=True)
        if (outcome is VerdictOutcome.CORRECT) != case.is_equal
    ]
    for case, outcome in wrong[:SHOWN]:
        console.print(f"{case.form}: {outcome} of {case.answer!r} for {case.reference!r}", markup=False)
    if as_json:
        for what, of in (("accept", "other"), ("reject", "equal")):
            rates = [_rate(counts, what, of) for counts in counted.values()]
            typer.echo(Result(f"verifier_false_{what}", rates[0], "%", rates[1], count).line())


def _rate(counts: Counter[tuple[str, str]], what: str, of: str) -> float:
    total = sum(number for (_, kind), number in counts.items() if kind == of)
    return 100.0 * sum(number for (_, kind), number in counts.items() if kind == what) / total


if __name__ == "__main__":
    typer.run(main)
