"""Which tokens share a ratio: by response, by segment, by token; what a tool wrote by none."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.training.rl.actions import UNTRAINED, cut_actions, ratio_unit, token_segments
from shared.contracts.recipe import RatioUnit, RewardLevel, RlRecipe
from shared.contracts.verdicts import ScoredSegment, SegmentKind

OUTCOME, PROCESS = RewardLevel
RESPONSE, ACTION, TOKEN, SEQUENCE = RatioUnit


def test_the_unit_is_what_has_one_reward_unless_the_recipe_says_another() -> None:
    assert ratio_unit(RlRecipe()) is RESPONSE
    assert ratio_unit(RlRecipe(level=PROCESS)) is ACTION
    assert ratio_unit(RlRecipe(ratio=SEQUENCE)) is SEQUENCE


def test_tool_output_is_in_no_action() -> None:
    segments = (
        ScoredSegment(kind=SegmentKind.ACT, start=0, end=2),
        ScoredSegment(kind=SegmentKind.OBSERVE, start=2, end=4),
        ScoredSegment(kind=SegmentKind.SOLVE, start=4, end=6, reward=1.0),
    )
    found = token_segments([1, 2, 3, 4, 5, 6, 6], segments)
    assert found == [0, 0, UNTRAINED, UNTRAINED, 2, 2, 2]
    assert cut_actions(found, [1.0], OUTCOME, RESPONSE) == ([0, 0, UNTRAINED, UNTRAINED, 0, 0, 0], [1.0])
    assert cut_actions(found, [1.0], OUTCOME, ACTION) == (found, [1.0, 1.0, 1.0])
    by_token = [0, 1, UNTRAINED, UNTRAINED, 4, 5, 6], [1.0, 1.0, None, None, 1.0, 1.0, 1.0]
    assert cut_actions(found, [1.0], OUTCOME, TOKEN) == by_token


@pytest.mark.parametrize(
    ("level", "unit"), [*((OUTCOME, unit) for unit in RatioUnit), (PROCESS, ACTION), (PROCESS, TOKEN)]
)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=5), st.data())
def test_every_token_has_the_advantage_of_what_it_lies_in(
    level: RewardLevel, unit: RatioUnit, drawn: list[tuple[int, bool]], data: Any
) -> None:
    segments_T = [
        UNTRAINED if is_observed else index for index, (length, is_observed) in enumerate(drawn) for _ in range(length)
    ]
    count = 1 if level is OUTCOME else len(drawn)
    advantages = data.draw(st.lists(st.floats(-1, 1) | st.none(), min_size=count, max_size=count))
    actions, of_actions = cut_actions(segments_T, advantages, level, unit)
    assert len(actions) == len(segments_T)
    for segment, action in zip(segments_T, actions, strict=True):
        assert (action == UNTRAINED) == (segment == UNTRAINED)
        if action != UNTRAINED:
            assert of_actions[action] == advantages[0 if level is OUTCOME else segment]
    together = {(a, b) for a in range(len(actions)) for b in range(a) if UNTRAINED != actions[a] == actions[b]}
    same_segment = {
        (a, b) for a in range(len(actions)) for b in range(a) if UNTRAINED != segments_T[a] == segments_T[b]
    }
    trained = [token for token, segment in enumerate(segments_T) if segment != UNTRAINED]
    whole = {(a, b) for a in trained for b in trained if b < a}
    assert together == {RESPONSE: whole, SEQUENCE: whole, ACTION: same_segment, TOKEN: set()}[unit]
