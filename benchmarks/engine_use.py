"""Does the engine stay full behind generation, sampling and verification? Tokens a second beside the same prompts sent straight to it.

Through Headwater: an order of `questions` × `k` in a real pool, from the start of a worker's drain until the pool has every group.
Straight: the same prompts as chats with the same parameters, all at once. In turns, on the same vLLM, which is warm and keeps no prefixes.
"""

import asyncio
import statistics
import time
from contextlib import ExitStack
from typing import Annotated
from uuid import uuid4

import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import engines, servers
from benchmarks.result import Result
from services.sampling.client import GenerationClient, PoolClient, VerificationClient
from services.sampling.service.drain import Drain
from services.sampling.settings import SamplingSettings

TARGET = 0.95
DEADLINE_S = 900.0


async def straight(engine: httpx.AsyncClient, prompts: list[str], k: int, max_tokens: int) -> tuple[int, float]:
    """Tokens sampled, and seconds."""

    async def ask(prompt: str) -> int:
        body = {"model": "base", "messages": [{"role": "user", "content": prompt}], "n": k, "max_tokens": max_tokens}
        body |= {"temperature": 1.0, "top_p": 1.0, "logprobs": True, "return_token_ids": True}
        answer = (await engine.post("/v1/chat/completions", json=body)).raise_for_status().json()
        return sum(len(choice["token_ids"]) for choice in answer["choices"])

    started = time.perf_counter()
    counts = await asyncio.gather(*(ask(prompt) for prompt in prompts))
    return sum(counts), time.perf_counter() - started


async def through(drain: Drain, pool: httpx.AsyncClient, order_id: str, questions: int) -> tuple[int, float]:
    """Tokens sampled, and seconds until the pool has every group."""
    started = time.perf_counter()
    report = await drain.run()
    seconds = time.perf_counter() - started
    if report.groups["stored"] != questions:
        raise RuntimeError(f"the drain stored {report.groups} and gave back {report.failed}: {report.ended}")
    metrics = (await pool.get(f"/v1/orders/{order_id}/metrics")).raise_for_status().json()
    return int(metrics["tokens_sampled"]), seconds


async def compare(
    pool: httpx.AsyncClient, addresses: dict[str, str], policy: str, campaign: str, sizes: tuple[int, int, int, int]
) -> dict[str, list[float]]:
    """Tokens a second of each turn."""
    questions, k, max_tokens, rounds = sizes
    rates: dict[str, list[float]] = {"straight": [], "through": []}
    headers = {"X-Headwater-Service-Token": servers.TOKEN}

    def client(name: str) -> httpx.AsyncClient:
        own = {} if name == "engine" else headers
        return httpx.AsyncClient(base_url=addresses[name], headers=own, timeout=DEADLINE_S, trust_env=False)

    async with client("engine") as engine, client("generation") as generation, client("verification") as verification:
        for number in range(-1, rounds):  # the first turn warms up
            texts = [f"Calculate {number + 2} + {at} - {at // 2}." for at in range(questions)]
            asked = [{"question": text, "answer": "7"} for text in texts]
            (await pool.post("/v1/questions", params={"campaign": campaign}, json=asked)).raise_for_status()
            order = {"campaign_id": campaign, "key": f"turn-{number}", "purpose": "probe", "policy_id": policy, "k": k}
            order |= {"policy_version": 0, "sampling": {"temperature": 1.0, "max_tokens": max_tokens}}
            order |= {"selection": {"limit": questions, "seed": number + 1}}
            made = (await pool.post("/v1/orders", json=order)).raise_for_status().json()
            clients = PoolClient(pool), GenerationClient(generation), VerificationClient(verification)
            drain = Drain(*clients, SamplingSettings(answers_in_flight=questions * k), "benchmark")
            for name in ("straight", "through") if number % 2 else ("through", "straight"):
                if name == "straight":
                    tokens, seconds = await straight(engine, texts, k, max_tokens)
                else:
                    tokens, seconds = await through(drain, pool, made["id"], questions)
                if number >= 0:
                    rates[name].append(tokens / seconds)
    return rates


def main(
    model: Annotated[str, typer.Option(help="tiny, smollm2, or a directory.")] = "tiny",
    questions: Annotated[int, typer.Option(min=1)] = 64,
    k: Annotated[int, typer.Option(min=1)] = 8,
    max_tokens: Annotated[int, typer.Option(min=1)] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that are counted.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Tokens a second through Headwater and straight to the engine."""
    campaign = uuid4()
    with ExitStack() as stack:
        engine = stack.enter_context(engines.running(model))
        database_url = stack.enter_context(servers.database())
        environment = engines.environment(engine, database_url)
        pool = stack.enter_context(servers.pool_api(database_url))
        generation = stack.enter_context(engines.generation(engine, database_url))
        verification = stack.enter_context(
            servers.api("services.verification.main:create_app", "/health/ready", environment)
        )
        with engines.client(generation) as http:
            base = engines.register(http, campaign, "base", engine.weights)
            http.post(f"/v1/policies/{base.id}/live").raise_for_status()
        addresses = {"engine": engine.url, "generation": generation, "verification": verification}

        async def run() -> dict[str, list[float]]:
            async with pool:
                settings = {"name": "benchmark"}
                (await pool.put(f"/v1/campaigns/{campaign}/settings", json=settings)).raise_for_status()
                return await compare(pool, addresses, str(base.id), str(campaign), (questions, k, max_tokens, rounds))

        rates = asyncio.run(run())
    medians = {name: statistics.median(values) for name, values in rates.items()}
    table = Table("", "tokens/s", "ratio", title=f"{model}: {questions} questions × {k}, {rounds} turns")
    for name in ("straight", "through"):
        table.add_row(name, f"{medians[name]:,.0f}", f"{medians[name] / medians['straight']:.3f}")
    Console().print(table)
    if as_json:
        typer.echo(Result("engine_use", medians["through"], "tokens/s", medians["straight"], rounds).line())
    raise typer.Exit(int(medians["through"] < TARGET * medians["straight"]))


if __name__ == "__main__":
    typer.run(main)
