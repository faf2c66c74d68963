"""Levels, states and standings: properties over every pass rate and recipe."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pool.router import UNUSABLE_STATES, Answered, PassRate, Standing, after_group, level_of, state_of
from shared.contracts.orders import OrderPurpose
from shared.contracts.questions import QuestionState, Split
from shared.contracts.recipe import RouterRecipe

PASS_RATES = st.integers(1, 64).flatmap(lambda n: st.integers(0, n).map(lambda correct: PassRate(n, correct)))
CUTS = st.lists(st.floats(0.01, 0.99), min_size=4, max_size=4, unique=True).map(lambda cuts: tuple(sorted(cuts)[::-1]))
ROUTERS = st.builds(
    RouterRecipe,
    noise_below=st.floats(0, 0.3),
    certain_from=st.floats(0.4, 0.8),
    trivial_from=st.floats(0.8, 1.0),
    level_cuts=CUTS,
)
STANDINGS = st.builds(
    Standing,
    split=st.sampled_from(Split),
    state=st.sampled_from(QuestionState),
    tiny=st.booleans(),
    level=st.none() | st.integers(1, 5),
    pass_rate=st.none() | st.floats(0, 1),
    probed_version=st.none() | st.integers(0, 9),
)


@st.composite
def answers(draw: st.DrawFn) -> Answered:
    scored = draw(st.integers(0, 8))
    unparseable = draw(st.booleans()) and scored == 0
    version, correct = draw(st.integers(0, 9)), draw(st.integers(0, scored))
    return Answered(draw(st.sampled_from(OrderPurpose)), version, scored, correct, unparseable)


@pytest.mark.parametrize(
    ("correct", "state", "level"),
    [(0, "noise", 5), (1, "hard", 4), (4, "hard", 3), (5, "hard", 3), (6, "certain", 2), (7, "certain", 2), (8, "trivial", 1)],
)  # fmt: skip
def test_the_default_router(correct: int, state: str, level: int):
    assert (state_of(PassRate(8, correct), RouterRecipe()), level_of(PassRate(8, correct), RouterRecipe())) == (
        state,
        level,
    )


@given(PASS_RATES, PASS_RATES, ROUTERS)
def test_more_right_answers_never_make_a_question_harder(one: PassRate, other: PassRate, router: RouterRecipe):
    order = [QuestionState.NOISE, QuestionState.HARD, QuestionState.CERTAIN, QuestionState.TRIVIAL]
    worse, better = sorted((one, other), key=lambda rate: rate.mean)
    assert level_of(worse, router) >= level_of(better, router)
    assert order.index(state_of(worse, router)) <= order.index(state_of(better, router))
    assert 0 <= worse.variance <= 0.25


@given(STANDINGS, answers(), ROUTERS)
def test_what_a_group_can_change(standing: Standing, answered: Answered, router: RouterRecipe):
    after = after_group(standing, answered, router)
    assert after.split is standing.split
    if not standing.usable:
        assert after == standing
    elif answered.reference_unparseable:
        assert after == replace(standing, state=QuestionState.QUARANTINED)
    elif answered.purpose is OrderPurpose.PROBE:
        if not answered.scored or (
            standing.probed_version is not None and answered.policy_version < standing.probed_version
        ):
            assert after == standing
        else:
            assert after.pass_rate == answered.correct / answered.scored
            assert after.probed_version == answered.policy_version
            assert (after.state is standing.state) or standing.split is Split.TRAIN
            assert after.tiny == standing.tiny
    else:
        assert replace(after, tiny=standing.tiny) == standing
        became_tiny = after.tiny and not standing.tiny
        assert not became_tiny or (answered.purpose is OrderPurpose.TEACH and answered.correct > 0)


@given(st.lists(STANDINGS), answers(), ROUTERS)
def test_counters_by_difference_equal_counting_again(
    standings: list[Standing], answered: Answered, router: RouterRecipe
):
    moved = [after_group(standing, answered, router) for standing in standings]
    counters = Counter(name for standing in standings for name in standing.counted_as())
    for before, after in zip(standings, moved, strict=True):
        counters.update(after.counted_as())
        counters.subtract(before.counted_as())
    assert +counters == Counter(name for standing in moved for name in standing.counted_as())
    usable = [standing for standing in moved if standing.split is Split.TRAIN and standing.state not in UNUSABLE_STATES]
    assert counters["train"] == len(usable)


@pytest.mark.parametrize(("n", "correct"), [(0, 0), (3, 4), (3, -1)])
def test_a_pass_rate_of_nothing_is_an_error(n: int, correct: int):
    with pytest.raises(ValueError, match="right ones"):
        PassRate(n, correct)
