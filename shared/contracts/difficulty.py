"""Difficulty as a time series: made by the pool, read by people and the console."""

from datetime import datetime
from uuid import UUID

from pydantic import Field

from shared.contracts.base import Contract
from shared.contracts.orders import OrderPurpose
from shared.contracts.questions import QuestionState, Split


class Measurement(Contract):
    """A question's pass rate under one policy version: `correct` of `n` scored responses, over all orders of one purpose.

    Purposes stay apart because they sample differently (a probe at temperature 0.7, an eval at 0). `low`, `high`: the 95 %
    interval of the Beta posterior under Jeffreys' prior. `variance`: of the 0/1 outcome. `level`: 1 (easy) to 5 (hard).
    """

    policy_id: UUID
    policy_version: int
    purpose: OrderPurpose
    n: int
    correct: int
    mean: float
    variance: float
    low: float
    high: float
    level: int
    measured_at: datetime


class PoolMove(Contract):
    """A question went from one pool to another. `tiny` lies beside the states: a question enters and leaves it as its own pool.

    `reason`: the purpose of the order that moved it, or why it was taken out.
    """

    from_pool: str
    to_pool: str
    reason: str
    order_id: UUID | None
    at: datetime


class QuestionDifficulty(Contract):
    """GET /v1/questions/{id}/difficulty: by policy version, oldest first; `moves` in the order they happened."""

    question_id: UUID
    state: QuestionState
    tiny: bool
    level: int | None
    pass_rate: float | None
    measurements: tuple[Measurement, ...]
    moves: tuple[PoolMove, ...]


class VersionLevels(Contract):
    """How many questions of a split the probes under one policy version put at each level."""

    policy_version: int
    split: Split
    n: int
    levels: dict[int, int] = Field(default_factory=dict)


class MoveCount(Contract):
    """How many questions went from one pool to another for one reason; `retracted` stands for every sentence given with one."""

    from_pool: str
    to_pool: str
    reason: str
    n: int


class CampaignDifficulty(Contract):
    """GET /v1/pools/difficulty: kept by whoever writes, so that reading it scans no question."""

    campaign_id: UUID
    versions: tuple[VersionLevels, ...]
    moves: tuple[MoveCount, ...]
