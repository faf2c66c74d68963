"""Knobs of the sampling worker (`HEADWATER_SAMPLING_*`)."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class SamplingSettings(BaseSettings):
    """How much a drain holds at once, and how long it waits.

    `answers_in_flight`: at most so many answers to claimed questions a worker process, or those of one question. `lease_s`: what a
    killed worker's questions wait for. `patience_s`: how long a dependency may stay away, from its first failure, before the leases
    are let go.
    `quiet_polls`: empty claims, `poll_interval_s` apart, before a drain ends while orders are open.
    `verdict_grace_s`: how long a batch of verdicts may wait for the checks of others, on top of what its own may take.
    `linger_s`: how long a finished group waits for company on its way to the pool.
    """

    model_config = SettingsConfigDict(env_prefix="HEADWATER_SAMPLING_", frozen=True)

    answers_in_flight: int = Field(default=384, ge=1, le=16_384)
    lease_s: float = Field(default=60.0, ge=3, le=3600)
    patience_s: float = Field(default=300.0, gt=0)
    poll_interval_s: float = Field(default=0.25, gt=0)
    quiet_polls: int = Field(default=4, ge=0)
    verdict_grace_s: float = Field(default=60.0, gt=0)
    linger_s: float = Field(default=0.1, ge=0, le=5)
    stop_grace_s: float = Field(default=5.0, ge=0)
