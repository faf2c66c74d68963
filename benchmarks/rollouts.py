"""Made-up rollouts for the pool's benchmarks: a standing order made through the API, and groups for its assignments."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np

from shared.contracts.generation import FinishReason
from shared.contracts.verdicts import ClaimedVerdict, ScoredSegment, SegmentKind, Verdict, VerdictOutcome
from shared.packed import PackedGroupIn, PackedResponse

K = 8
PROMPT_TOKENS = 128
VOCABULARY = 150_000
# Of English text under a vocabulary of this size.
CHARACTERS_PER_TOKEN = 4
WORDS = (
    "seven",
    "times",
    "eight",
    "is",
    "fifty-six",
    "so",
    "the",
    "sum",
    "of",
    "both",
    "sides",
    "\\frac{1}{2}",
    "=",
    "therefore",
)


async def standing_order(client: httpx.AsyncClient, questions: int, watermark_groups: int) -> str:
    """The id of a standing order of a new campaign with so many questions."""
    campaign = str(uuid4())
    settings: dict[str, Any] = {"name": "benchmark", "router": {}}
    (await client.put(f"/v1/campaigns/{campaign}/settings", json=settings)).raise_for_status()
    for start in range(0, questions, 1000):
        body = [
            {"question": f"Benchmark {uuid4()}: what is {n} + 1?", "answer": str(n + 1), "kind": "numeric"}
            for n in range(start, min(start + 1000, questions))
        ]
        (await client.post("/v1/questions", params={"campaign": campaign}, json=body)).raise_for_status()
    order: dict[str, Any] = {
        "campaign_id": campaign,
        "key": "rollouts",
        "purpose": "rollout",
        "policy_id": str(uuid4()),
        "policy_version": 1,
        "k": K,
        "sampling": {},
        "watermark_groups": watermark_groups,
    }
    return str((await client.post("/v1/orders", json=order)).raise_for_status().json()["id"])


async def claim(client: httpx.AsyncClient, count: int) -> list[dict[str, Any]]:
    """So many leased assignments. Raises: RuntimeError when there are not as many."""
    assignments: list[dict[str, Any]] = []
    while len(assignments) < count:
        body = {"worker": "benchmark", "limit": min(count - len(assignments), 1024), "lease_s": 3600}
        answer = (await client.post("/v1/assignments/claim", json=body)).raise_for_status().json()["assignments"]
        if not answer:
            raise RuntimeError(f"there are {len(assignments)} assignments, not {count}")
        assignments += answer
    return assignments


def groups(assignments: Sequence[dict[str, Any]], tokens: int, rng: np.random.Generator) -> list[PackedGroupIn]:
    """A group an assignment, each of K responses of `tokens` tokens; half of them are right."""
    return [
        PackedGroupIn(
            UUID(assignment["id"]),
            UUID(assignment["lease_token"]),
            UUID(assignment["policy_id"]),
            rng.integers(0, VOCABULARY, PROMPT_TOKENS, np.int32).tobytes(),
            tuple(_response(tokens, rng, right=number % 2 == 0) for number in range(K)),
        )
        for assignment in assignments
    ]


def _response(tokens: int, rng: np.random.Generator, *, right: bool) -> PackedResponse:
    characters = tokens * CHARACTERS_PER_TOKEN
    text = " ".join(rng.choice(WORDS, characters // 3))[:characters]
    reward = 1.0 if right else -1.0
    claimed = ClaimedVerdict.CORRECT if right else ClaimedVerdict.INCORRECT
    half = len(text) // 2
    segments = (
        ScoredSegment(kind=SegmentKind.SOLVE, start=0, end=half, answer="56", reward=reward),
        ScoredSegment(kind=SegmentKind.VERIFY, start=half, end=len(text), claimed=claimed, reward=1.0),
    )
    outcome = VerdictOutcome.CORRECT if right else VerdictOutcome.INCORRECT
    return PackedResponse(
        text=text,
        finish_reason=FinishReason.STOP,
        token_ids=rng.integers(0, VOCABULARY, tokens, np.int32).tobytes(),
        logprobs=(-rng.exponential(0.5, tokens)).astype(np.float32).tobytes(),
        token_ends=np.linspace(1, len(text), tokens).astype(np.int32).tobytes(),
        judgement=Verdict(outcome=outcome, answer="56", segments=segments, verifier="numeric@1", milliseconds=0.4),
    )
