"""Made-up packed groups, ragged in every way."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from shared.contracts.generation import FinishReason
from shared.contracts.verdicts import ScoredSegment, SegmentKind, Verdict, VerdictOutcome
from shared.packed import PackedGroupIn, PackedResponse

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def responses(draw: Any) -> PackedResponse:
    """One response of 0 to 9 tokens."""
    tokens = draw(st.integers(0, 9))
    ids = draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=tokens, max_size=tokens))
    logprobs = draw(st.lists(st.floats(width=32), min_size=tokens, max_size=tokens))
    segments = draw(
        st.lists(
            st.builds(ScoredSegment, kind=st.sampled_from(SegmentKind), start=st.just(0), end=st.just(0), answer=WORDS)
        )
    )
    return PackedResponse(
        text=draw(WORDS),
        finish_reason=draw(st.sampled_from(FinishReason)),
        token_ids=np.array(ids, "<i4").tobytes(),
        logprobs=np.array(logprobs, "<f4").tobytes(),
        token_ends=np.arange(tokens, dtype="<i4").tobytes(),
        judgement=Verdict(
            outcome=draw(st.sampled_from(VerdictOutcome)),
            answer=draw(st.none() | WORDS),
            segments=tuple(segments),
            verifier="test@1",
        ),
    )


GROUPS_IN = st.builds(
    PackedGroupIn,
    assignment_id=st.uuids(),
    lease_token=st.uuids(),
    policy_id=st.uuids(),
    prompt_token_ids=st.lists(st.integers(0, 9), max_size=5).map(lambda ids: np.array(ids, "<i4").tobytes()),
    responses=st.lists(responses(), min_size=1, max_size=4).map(tuple),
)
