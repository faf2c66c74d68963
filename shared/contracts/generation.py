"""Sampling requests: made by sampling workers, answered by generation."""

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from shared.contracts.base import Contract, Items, PackedFloat32, PackedInt32


class SamplingParameters(Contract):
    """How to sample. `max_tokens` counts new tokens; `temperature` 0 is greedy; an answer ends with the first of `stop` that it writes."""

    temperature: float = Field(default=1.0, ge=0.0, le=2.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_tokens: int = Field(default=256, ge=1, le=32_768)
    stop: Items[Annotated[str, Field(min_length=1, max_length=100)]] = Field(default=(), max_length=8)


class FinishReason(StrEnum):
    """Why the engine stopped."""

    STOP = "stop"
    LENGTH = "length"
    REFERENCE = "reference"


class Prompt(Contract):
    """One question to sample; `reference_solution` is what a `reference` policy answers with."""

    id: str
    text: str
    reference_solution: str | None = None


class SampleRequest(Contract):
    """`n` responses for every prompt under ONE policy, within `deadline_s` seconds."""

    policy_id: UUID
    prompts: Items[Prompt] = Field(min_length=1, max_length=1024)
    n: int = Field(default=1, ge=1, le=256)
    sampling: SamplingParameters = SamplingParameters()
    deadline_s: float = Field(default=600.0, gt=0, le=3600)


class Sample(Contract):
    """One sampled response.

    `token_ids`, `logprobs` (log pi of each sampled token at sampling time, untempered as the engine gives them) and
    `token_ends` (character offset in `text` after each token) have the same length T; empty where the policy has no
    tokens (external, reference). The end-of-sequence token is included where the engine emitted it (token_ends = len(text)).
    """

    text: str
    finish_reason: FinishReason
    token_ids: PackedInt32 = ""
    logprobs: PackedFloat32 = ""
    token_ends: PackedInt32 = ""


class PromptSamples(Contract):
    """The n samples of one prompt, or the named error why there are none (then the caller retries).

    `error` is a stable code such as `deadline`, `engine-down`, `no-reference-solution`; `message` says it in a sentence.
    """

    id: str
    prompt_token_ids: PackedInt32 = ""
    samples: tuple[Sample, ...] = ()
    error: str | None = None
    message: str = ""


class SampleResult(Contract):
    """Streamed as NDJSON, one `PromptSamples` a line, as prompts finish; this type is the non-streamed form."""

    policy_id: UUID
    items: tuple[PromptSamples, ...]
