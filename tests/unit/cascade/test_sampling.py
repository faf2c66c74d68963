"""What a re-probe selects: the recipe's share by default, within its limits."""

import pytest

from services.cascade.service.sampling import reprobe_selection
from shared.contracts.orders import QuestionSelection, ReprobeSelection
from shared.contracts.questions import PoolCounts
from shared.contracts.recipe import Recipe, ReprobeRecipe

COUNTS = PoolCounts(train=101)
AGAIN = ReprobeSelection(policy_version=2)


@pytest.mark.parametrize(
    ("section", "selection"),
    [
        ({}, QuestionSelection(seed=7)),
        ({"fraction": 0.5}, QuestionSelection(seed=7, fraction=0.5)),
        ({"max_questions": 9}, QuestionSelection(seed=7, limit=9)),
        ({"choose": "informative"}, QuestionSelection(seed=7, limit=101, reprobe=AGAIN)),
        ({"choose": "informative", "fraction": 0.1}, QuestionSelection(seed=7, limit=11, reprobe=AGAIN)),
        (
            {"choose": "informative", "fraction": 0.1, "max_questions": 5},
            QuestionSelection(seed=7, limit=5, reprobe=AGAIN),
        ),
    ],
)
def test_the_budget_is_the_share_and_never_more_than_the_limit(
    section: dict[str, object], selection: QuestionSelection
):
    recipe = Recipe.model_validate({"reprobe": section})
    assert reprobe_selection(recipe.reprobe, 7, COUNTS, 2) == selection


def test_without_questions_the_budget_is_still_one():
    section = ReprobeRecipe(choose="informative")
    assert reprobe_selection(section, 0, PoolCounts(), 2).limit == 1
