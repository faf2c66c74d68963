"""How soon does a published adapter answer, and what do ten of them cost? Generation beside vLLM's own calls, on a real engine.

`adapter_live`: from registering a new adapter until its first token, beside vLLM's own load call and its first token; in turns, every time
another adapter. `adapters_mixed`: the tokens a second of the same prompts spread over `many` adapters, beside all of them on one.
"""

import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated
from uuid import UUID, uuid4

import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import engines, servers
from benchmarks.result import Result
from shared.contracts.generation import PromptSamples
from shared.contracts.policies import Policy

SLOWER_S = 0.1
PROMPT = "Calculate 1 + 1."


def published(http: httpx.Client, campaign: UUID, base: Policy, weights: Path) -> float:
    """Seconds from registering an adapter until its first token, by generation."""
    started = time.perf_counter()
    policy = engines.register(http, campaign, weights.name, weights, base)
    http.post(f"/v1/policies/{policy.id}/live").raise_for_status()
    sample(http, policy, 1, 1)
    return time.perf_counter() - started


def loaded(engine: httpx.Client, weights: Path) -> float:
    """Seconds of vLLM's own load call and the first token."""
    started = time.perf_counter()
    body = {"lora_name": weights.name, "lora_path": str(weights)}
    engine.post("/v1/load_lora_adapter", json=body).raise_for_status()
    chat = {"model": weights.name, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 1}
    engine.post("/v1/chat/completions", json=chat).raise_for_status()
    seconds = time.perf_counter() - started
    engine.post("/v1/unload_lora_adapter", json={"lora_name": weights.name}).raise_for_status()
    return seconds


def sample(http: httpx.Client, policy: Policy, n: int, max_tokens: int) -> None:
    """One prompt."""
    body = {"policy_id": str(policy.id), "n": n, "prompts": [{"id": "1", "text": PROMPT}]}
    answer = http.post("/v1/samples", json=body | {"sampling": {"max_tokens": max_tokens}}).raise_for_status()
    line = PromptSamples.model_validate_json(answer.content)
    if line.error:
        raise RuntimeError(line.message)


async def tokens_per_s(url: str, policies: Sequence[str], prompts: int, n: int, max_tokens: int) -> float:
    """Tokens a second of `prompts` prompts spread over the policies, one request a policy."""
    headers = {"X-Headwater-Service-Token": servers.TOKEN}

    async def ask(http: httpx.AsyncClient, policy: str, share: range) -> int:
        asked = [{"id": str(at), "text": f"Calculate {at} + {at}."} for at in share]
        body = {"policy_id": policy, "n": n, "prompts": asked, "sampling": {"max_tokens": max_tokens}}
        answer = (await http.post("/v1/samples", json=body)).raise_for_status()
        lines = [PromptSamples.model_validate_json(line) for line in answer.text.splitlines()]
        if failed := [line.message for line in lines if line.error]:
            raise RuntimeError(failed[0])
        # Four bytes a token, four thirds of that in base64.
        return sum(len(sample.token_ids) * 3 // 16 for line in lines for sample in line.samples)

    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=engines.DEADLINE_S, trust_env=False) as http:
        started = time.perf_counter()
        shares = [range(at, prompts, len(policies)) for at in range(len(policies))]
        counts = await asyncio.gather(*(ask(http, *pair) for pair in zip(policies, shares, strict=True)))
        return sum(counts) / (time.perf_counter() - started)


def main(
    model: Annotated[str, typer.Option(help="tiny, smollm2, or a directory.")] = "tiny",
    rounds: Annotated[int, typer.Option(min=1, help="Turns that are counted.")] = 9,
    many: Annotated[int, typer.Option(min=2, help="Adapters of the mixed traffic.")] = 10,
    prompts: Annotated[int, typer.Option(min=1)] = 40,
    n: Annotated[int, typer.Option(min=1)] = 4,
    max_tokens: Annotated[int, typer.Option(min=1)] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON a claim.")] = False,
) -> None:
    """How soon an adapter answers, and what many of them cost."""
    campaign = uuid4()
    live: dict[str, list[float]] = {"vllm": [], "generation": []}
    mixed: dict[str, list[float]] = {"one": [], "many": []}
    with ExitStack() as stack:
        engine = stack.enter_context(engines.running(model))
        database_url = stack.enter_context(servers.database())
        url = stack.enter_context(engines.generation(engine, database_url))
        http = stack.enter_context(engines.client(url))
        direct = stack.enter_context(httpx.Client(base_url=engine.url, timeout=engines.DEADLINE_S, trust_env=False))
        weights = iter(engines.make_adapters(engine, 2 * (rounds + 1) + many))
        base = engines.register(http, campaign, "base", engine.weights)
        http.post(f"/v1/policies/{base.id}/live").raise_for_status()
        for number in range(rounds + 1):
            seconds = published(http, campaign, base, next(weights)), loaded(direct, next(weights))
            if number:  # the first turn warms up
                live["generation"].append(seconds[0])
                live["vllm"].append(seconds[1])
        policies = []
        for folder in weights:
            policy = engines.register(http, campaign, folder.name, folder, base)
            http.post(f"/v1/policies/{policy.id}/live").raise_for_status()
            policies.append(str(policy.id))
        for number in range(rounds + 1):
            for name, used in (("one", policies[:1]), ("many", policies)):
                rate = asyncio.run(tokens_per_s(url, used, prompts, n, max_tokens))
                if number:
                    mixed[name].append(rate)
    medians = {name: statistics.median(values) for name, values in (live | mixed).items()}
    later_s = medians["generation"] - medians["vllm"]
    table = Table(
        "", "vLLM alone / one adapter", f"generation / {many} adapters", "ratio", title=f"{model}, {rounds} turns"
    )
    ratios = medians["generation"] / medians["vllm"], medians["many"] / medians["one"]
    table.add_row(
        "published → first token, ms",
        f"{1000 * medians['vllm']:.1f}",
        f"{1000 * medians['generation']:.1f}",
        f"{ratios[0]:.2f}",
    )
    table.add_row("tokens/s", f"{medians['one']:,.0f}", f"{medians['many']:,.0f}", f"{ratios[1]:.2f}")
    console = Console()
    console.print(table)
    console.print(f"generation is {1000 * later_s:+.1f} ms later")
    if as_json:
        typer.echo(Result("adapter_live", 1000 * medians["generation"], "ms", 1000 * medians["vllm"], rounds).line())
        typer.echo(Result("adapters_mixed", medians["many"], "tokens/s", medians["one"], rounds).line())
    raise typer.Exit(int(later_s > SLOWER_S))


if __name__ == "__main__":
    typer.run(main)
