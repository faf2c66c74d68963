"""What teaches.py takes for the figures of a seed."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmarks import methods
from benchmarks.seeds import Seed, _changed_demo, known_figures, resolved_recipe
from benchmarks.teaches import at_equal_tokens, parse_change
from examples.demos import RECIPES
from services.local.directory import DataDirectory
from shared.contracts.recipe import Recipe, RlRecipe


def test_figures_of_another_recipe_are_refused(tmp_path: Path):
    path, recipe = tmp_path / "teaches.json", resolved_recipe(RECIPES["tiny"].recipe, 1)
    assert recipe != Recipe(seed=1), "the file's keys count"
    known = known_figures(path, 1, recipe)
    assert not known.is_complete
    known.rows["base"] = {"n": 600}
    path.write_text(json.dumps(asdict(known)))
    saved_often = recipe.model_copy(update={"rl": recipe.rl.model_copy(update={"checkpoint_every_steps": 1})})
    assert known_figures(path, 1, saved_often).rows == {"base": {"n": 600}}
    with pytest.raises(typer.BadParameter, match="another recipe"):
        known_figures(path, 1, Recipe(seed=1))


def test_a_seed_is_complete_with_every_policy_and_vote():
    rows: dict[str, dict[str, Any]] = {name: {} for name in methods.NAMES}
    votes: dict[str, dict[str, Any]] = {name: {} for name in methods.WITHOUT_VERIFICATION}
    assert Seed(0, {}, rows, votes).is_complete
    assert not Seed(0, {}, rows, {}).is_complete
    assert not Seed(0, {}, {}, votes).is_complete


def test_a_changed_recipe_is_the_demos_but_for_what_is_set(tmp_path: Path):
    demo = RECIPES["tiny"]
    changes = dict(map(parse_change, ["rl.steps=75", "seed=3", "pool.near_duplicate_threshold=0"]))
    changed = resolved_recipe(_changed_demo(demo, changes, DataDirectory.at(tmp_path)).recipe, 3)
    own = resolved_recipe(demo.recipe, 3)
    assert changed.rl.steps == 75
    assert changed.pool.near_duplicate_threshold == 0
    assert changed.model_copy(update={"rl": own.rl, "pool": own.pool}) == own
    with pytest.raises(typer.BadParameter, match=r"rl\.steps=75"):
        parse_change("rl.steps")


def test_as_many_answers_vote_as_the_verifying_policys_tokens_pay_for():
    seed = Seed(0, {}, {"sft-1": {"mean_tokens": 90.0}}, {"grpo": {"tokens": 40.0, "accuracy": [0.5, 0.6, 0.7]}})
    assert at_equal_tokens(seed, "sft-1", "grpo") == (2, 0.6)


@pytest.mark.parametrize(("rows", "steps"), [(0, 1), (64 * 8, 8), (5000, 75)])
def test_offline_groups_are_used_about_twice(rows: int, steps: int):
    assert methods.offline_steps(rows, RlRecipe(steps=75, k=8, groups_per_step=16, watermark_groups=16)) == steps
