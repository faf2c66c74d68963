"""Knobs of the sampling worker (`HEADWATER_SAMPLING_*`)."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class SamplingSettings(BaseSettings):
    """How much a drain holds at once, and how long it waits.

    `questions_in_flight`: at most so many claimed questions a worker process. `lease_s`: what a killed worker's questions
    wait for. `patience_s`: how long a dependency may stay away, from its first failure, before the leases are let go.
    `quiet_polls`: empty claims, `poll_interval_s` apart, before a drain ends while orders are open.
    `linger_s`: how long a finished group waits for company on its way to the pool.
    """

    model_config = SettingsConfigDict(env_prefix="HEADWATER_SAMPLING_", frozen=True)

    questions_in_flight: int = Field(default=48, ge=1, le=1024)
    lease_s: float = Field(default=60.0, ge=3, le=3600)
    patience_s: float = Field(default=300.0, gt=0)
    poll_interval_s: float = Field(default=0.25, gt=0)
    quiet_polls: int = Field(default=4, ge=0)
    linger_s: float = Field(default=0.1, ge=0, le=5)
    stop_grace_s: float = Field(default=5.0, ge=0)
