"""Scored groups with their token arrays: what the recipe for offline RL reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.contracts.generation import FinishReason
from shared.contracts.verdicts import ScoredSegment, VerdictOutcome


@dataclass(frozen=True, slots=True)
class ScoredResponse:
    """One response; the arrays have an entry a token, and are None where the pool holds them no more."""

    position: int
    text: str
    finish_reason: FinishReason
    outcome: VerdictOutcome
    segments: tuple[ScoredSegment, ...]
    token_ids: NDArray[np.int32] | None
    logprobs: NDArray[np.float32] | None
    token_ends: NDArray[np.int32] | None


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """The responses of one question under one policy version."""

    id: str
    question_id: str
    question: str
    policy_id: str
    policy_version: int
    prompt_token_ids: NDArray[np.int32] | None
    responses: Sequence[ScoredResponse]
