"""Which questions are worth asking again: properties over every measurement and router."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pool.reprobe import Measured, nearness, ranked, score
from shared.contracts.recipe import RouterRecipe
from tests.unit.pool.test_router import ROUTERS

VERSION = 6
MEASURED = st.integers(0, 32).flatmap(
    lambda n: st.builds(
        Measured, st.just(n), st.integers(0, n), st.integers(0, VERSION) if n else st.none() | st.integers(0, VERSION)
    )
)


@given(MEASURED, ROUTERS)
def test_a_score_is_not_negative_and_zero_only_for_what_this_version_measured(one: Measured, router: RouterRecipe):
    assert (score(one, VERSION, router) == 0) == (one.version == VERSION)
    assert score(one, VERSION, router) >= 0
    assert 0 <= nearness(one, router) <= 1


@given(MEASURED, ROUTERS)
def test_a_staler_measurement_is_worth_more_and_none_is_the_stalest(one: Measured, router: RouterRecipe):
    older = [score(Measured(one.n, one.correct, version), VERSION, router) for version in (None, *range(VERSION))]
    assert older == sorted(older, reverse=True)
    assert len(set(older)) == len(older)


@given(st.integers(1, 8), st.integers(0, 8), ROUTERS)
def test_at_the_same_distance_more_responses_are_worth_asking_less(times: int, correct: int, router: RouterRecipe):
    few, many = Measured(8, correct, 0), Measured(8 * (times + 1), correct * (times + 1), 0)
    no_bonus = [score(one, VERSION, router) / (1 + nearness(one, router)) for one in (few, many)]
    assert no_bonus[0] > no_bonus[1]


def test_near_a_cut_is_worth_more_than_far_from_it():
    router = RouterRecipe(noise_below=0.0, certain_from=0.75, trivial_from=1.0)
    at_a_cut, far = Measured(64, 48, 0), Measured(64, 24, 0)
    assert nearness(at_a_cut, router) > 0.9 > 0.01 > nearness(far, router)
    assert score(at_a_cut, 1, router) > score(far, 1, router)


@given(st.lists(MEASURED, unique=True), st.integers(0, VERSION + 1), ROUTERS)
def test_a_ranking_is_by_score_and_of_what_is_stale_enough(kinds: list[Measured], minimum: int, router: RouterRecipe):
    found = ranked(kinds, VERSION, minimum, router)
    scores = [value for _, value in found]
    assert scores == sorted(scores, reverse=True)
    assert {one for one, _ in found} == {
        one for one in kinds if (VERSION + 1 if one.version is None else VERSION - one.version) >= minimum
    }
    assert ranked(reversed(kinds), VERSION, minimum, router) == found


def test_a_selection_that_asks_again_needs_its_budget():
    from shared.contracts.orders import QuestionSelection, ReprobeSelection

    asked = ReprobeSelection(policy_version=2)
    assert QuestionSelection(limit=3, reprobe=asked).limit == 3
    for wrong in ({"limit": None}, {"limit": 3, "split": None}, {"limit": 3, "fraction": 0.5}):
        with pytest.raises(ValueError, match="its budget"):
            QuestionSelection(reprobe=asked, **wrong)
