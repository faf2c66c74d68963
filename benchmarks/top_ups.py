"""What does it cost a standing order to know its next questions? Top-ups of 64 groups over a queue that is drawn now and then.

A draw reads every question that the order selects; `amortised` spreads it over the turns that it drew. Reference: the same top-up over
the smallest number of questions.
"""

import asyncio
import statistics
import time
from typing import Annotated
from uuid import uuid4

import asyncpg
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import servers
from benchmarks.result import Result
from services.pool.models import CampaignRow, OrderRow
from services.pool.repository import rollouts
from shared.contracts.weights import QuestionWeights, WeightBy
from shared.db import Database

GROUPS = 64
_QUESTIONS = """
    INSERT INTO pool.questions (id, campaign_id, text_hash, text, answer, kind, split, domain, source, state, level)
    SELECT gen_random_uuid(), $1, decode(md5(n::text), 'hex'), rpad(n::text, 200, ' and more'), n::text, 'math', 'train', 'text', 'b',
        'hard', 1 + n % 5
    FROM generate_series(1, $2) AS n
"""
_PASS_RATES = """
    INSERT INTO pool.pass_rates (question_id, policy_id, order_id, policy_version, n, correct, mean, variance, level)
    SELECT id, $1, $1, 1, 8, position % 9, position % 9 / 8.0, position % 9 / 8.0 * (1 - position % 9 / 8.0), 3 FROM pool.questions
"""


async def measure(url: str, questions: int, weights: QuestionWeights, top_ups: int) -> tuple[float, float, int]:
    """Median milliseconds of a top-up from the queue, milliseconds of a draw, and how many turns it drew."""
    campaign, database = uuid4(), Database(url)
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    order = OrderRow(
        id=uuid4(), campaign_id=campaign, key="b", request_hash="", purpose="rollout", policy_id=campaign, policy_version=1, k=8,
        sampling={}, selection={"states": ["hard"]}, watermark_groups=GROUPS, weights=weights.model_dump(mode="json"),
        priority=0, turns=0.0, max_attempts=5, deadline_s=60.0,
    )  # fmt: skip
    async with database.transaction() as session:
        session.add(CampaignRow(id=campaign, name="b", router={}))
        await session.flush()
        session.add(order)
    await connection.execute("SET session_replication_role = replica; TRUNCATE pool.questions CASCADE")
    await connection.execute(_QUESTIONS, campaign, questions)
    await connection.execute(_PASS_RATES, order.id)
    await connection.execute("VACUUM (ANALYZE)")
    await connection.close()
    draws, takes, drawn = [], [], 0
    for _ in range(top_ups):
        async with database.transaction() as session:
            session.add(order)
            started = time.perf_counter()
            if await rollouts.queued(session, order.id) < GROUPS:
                drawn = await rollouts.draw(session, order)
                draws.append(1000 * (time.perf_counter() - started))
                started = time.perf_counter()
            await rollouts.take(session, order, GROUPS)
            takes.append(1000 * (time.perf_counter() - started))
            await session.flush()
            session.expunge(order)
    await database.close()
    return statistics.median(takes), statistics.median(draws), drawn


def main(
    sizes: Annotated[str, typer.Option(help="Questions, by commas.")] = "1000,100000,1000000",
    top_ups: Annotated[int, typer.Option(min=5)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Top-ups and draws at several sizes."""
    table = Table("questions", "weights", "top-up of 64, ms", "draw, ms", "turns drawn", "amortised a group, ms")
    costs: list[float] = []
    with servers.database() as url:
        for size in map(int, sizes.split(",")):
            for by in (WeightBy.UNIFORM, WeightBy.LEARNABILITY):
                take, draw, drawn = asyncio.run(measure(url, size, QuestionWeights(by=by), top_ups))
                costs.append(take)
                amortised = take / GROUPS + draw / drawn
                table.add_row(f"{size:,}", by, f"{take:.2f}", f"{draw:,.1f}", f"{drawn:,}", f"{amortised:.3f}")
    Console().print(table)
    if as_json:
        typer.echo(Result("top_ups", costs[-1], "ms", costs[1], top_ups).line())


if __name__ == "__main__":
    typer.run(main)
