"""How often a standing order takes a question, relative to the others: named in the recipe, carried out by the pool."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from shared.contracts.base import Contract

Weight = Annotated[float, Field(ge=0, le=1_000_000)]


class WeightBy(StrEnum):
    """`uniform`: every question as often as any other. `learnability`: μ·σ² of its newest pass rate. `level`: a weight a level."""

    UNIFORM = "uniform"
    LEARNABILITY = "learnability"
    LEVEL = "level"


class QuestionWeights(Contract):
    """Weights relative to the largest one, which counts as 1; a question of weight 0 is not taken.

    `learnability`: mean times variance of the newest pass rate that a probe or a rollout measured (0/1 outcomes: μ²(1 − μ),
    largest at μ = 2/3), and at least `floor`, so that a question that was never, or always, answered right is tried again some
    day. `level`: `levels[i]` is the weight of level i + 1. `unmeasured`: of a question without a pass rate or a level.
    """

    by: WeightBy = WeightBy.UNIFORM
    levels: tuple[Weight, Weight, Weight, Weight, Weight] | None = None
    floor: float = Field(default=0.05, ge=0, le=1)
    unmeasured: float = Field(default=1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _levels_belong_to_level(self) -> "QuestionWeights":
        if (self.levels is not None) != (self.by is WeightBy.LEVEL):
            raise ValueError("'levels' (five weights, of level 1 to 5) goes with by = 'level' and with nothing else")
        if self.levels is not None and not any(self.levels):
            raise ValueError("'levels' needs a weight above 0: as it is, no question would ever be taken")
        return self
