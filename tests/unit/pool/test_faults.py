"""What a response may not have: arrays of different lengths, log-probabilities that are no numbers, segments behind its text."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.pool.service.faults import response_fault
from shared.contracts.generation import FinishReason
from shared.contracts.verdicts import ScoredSegment, SegmentKind, Verdict, VerdictOutcome
from shared.packed import PackedResponse

LOGPROBS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20)
NO_NUMBERS = st.sampled_from([float("nan"), float("inf"), -float("inf")])


def response(logprobs: list[float], end: int = 0, **arrays: Any) -> PackedResponse:
    packed = {"token_ids": bytes(4 * len(logprobs)), "token_ends": bytes(4 * len(logprobs))}
    packed |= {"logprobs": np.array(logprobs, "<f4").tobytes()} | arrays
    segments = (ScoredSegment(kind=SegmentKind.SOLVE, start=0, end=end),)
    verdict = Verdict(outcome=VerdictOutcome.CORRECT, segments=segments, verifier="test@1")
    return PackedResponse("text", FinishReason.STOP, judgement=verdict, **packed)


@given(LOGPROBS)
def test_finite_log_probabilities_are_no_fault(logprobs: list[float]):
    assert response_fault(response(logprobs)) is None


@given(LOGPROBS, NO_NUMBERS, st.lists(st.floats(width=32), max_size=5))
def test_the_first_that_is_no_number_is_named(before: list[float], value: float, behind: list[float]):
    said = f"the log-probability {value} of token {len(before)}, which is no finite number"
    assert response_fault(response([*before, value, *behind])) == said


def test_lengths_and_ends():
    assert response_fault(response([0.0], token_ids=b"")) == "token_ids, logprobs and token_ends of different lengths"
    assert response_fault(response([], end=4)) is None
    assert response_fault(response([], end=5)) == "a segment behind the end of its text"
