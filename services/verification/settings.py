"""Knobs of the verification service (`HEADWATER_VERIFICATION_*`)."""

import os
from uuid import UUID

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.verification.kinds.rubric import Weights


class VerificationSettings(BaseSettings):
    """`deadline_s`: wall clock of one check, from the start of its work. `memory_bytes`: address space of one worker.

    `cache_entries`: judgements that are remembered, so many in memory and so many in Valkey. `code_deadline_s`: wall clock of one
    program with all its tests; `code_memory_bytes`: address space of each of its processes. `judge`: id of the policy that judges
    kind `rubric`; `rubric_weights`: of its marks (reasoning, fidelity, presentation), by task type; from `rubric_threshold` on, a
    score is `correct`; `judge_deadline_s`: for one answer.
    """

    model_config = SettingsConfigDict(env_prefix="HEADWATER_VERIFICATION_", frozen=True)

    deadline_s: float = Field(default=5.0, gt=0, le=600)
    workers: int = Field(default=min(2, os.cpu_count() or 1), ge=1, le=256)
    memory_bytes: int = Field(default=1 << 30, ge=256 << 20)
    cache_entries: int = Field(default=100_000, ge=1)
    code_deadline_s: float = Field(default=60.0, gt=0, le=600)
    code_memory_bytes: int = Field(default=256 << 20, ge=64 << 20)
    judge: UUID | None = None
    judge_deadline_s: float = Field(default=120.0, gt=0, le=600)
    rubric_threshold: float = Field(default=0.7, gt=0, le=1)
    rubric_weights: dict[str, Weights] = Field(default={"general": (0.4, 0.4, 0.2)}, min_length=1)
