"""Knobs of the verification service (`HEADWATER_VERIFICATION_*`)."""

import os

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class VerificationSettings(BaseSettings):
    """`deadline_s`: wall clock of one check, from the start of its work. `memory_bytes`: address space of one worker.

    `cache_entries`: judgements that are remembered, so many in memory and so many in Valkey.
    """

    model_config = SettingsConfigDict(env_prefix="HEADWATER_VERIFICATION_", frozen=True)

    deadline_s: float = Field(default=5.0, gt=0, le=600)
    workers: int = Field(default=min(2, os.cpu_count() or 1), ge=1, le=256)
    memory_bytes: int = Field(default=1 << 30, ge=256 << 20)
    cache_entries: int = Field(default=100_000, ge=1)
