"""What the learning benchmark takes for a result."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmarks.learning import _is_report_of_success, _pooled, resolved_recipe
from examples.demos import RECIPES
from shared.contracts.recipe import Recipe


@pytest.mark.parametrize(("status", "is_one"), [("succeeded", True), ("failed", False), ("running", False)])
def test_only_the_report_of_a_success_is_not_run_again(tmp_path: Path, status: str, is_one: bool):
    path, recipe = tmp_path / "report.json", resolved_recipe(RECIPES["tiny"].recipe, 1)
    assert not _is_report_of_success(path, recipe)
    path.write_text(json.dumps({"campaign": {"status": status}, "recipe": recipe.model_dump(mode="json")}))
    assert _is_report_of_success(path, recipe) is is_one


def test_the_report_of_another_recipe_is_refused(tmp_path: Path):
    path, recipe = tmp_path / "report.json", resolved_recipe(RECIPES["tiny"].recipe, 0)
    assert recipe != Recipe(), "the file's keys count"
    path.write_text(json.dumps({"campaign": {"status": "succeeded"}, "recipe": {}}))
    with pytest.raises(typer.BadParameter, match="another recipe"):
        _is_report_of_success(path, recipe)


def test_pooling_refuses_a_seed_without_an_accuracy():
    known: dict[str, Any] = {"n": 100, "final_accuracy": 0.5, "error_recall": None}
    assert _pooled([known, {"n": 300, "final_accuracy": 0.7}])["final_accuracy"] == pytest.approx(0.65)
    for stages in ([known, {"n": 0, "final_accuracy": None}], []):
        with pytest.raises(ValueError, match="no final accuracy"):
            _pooled(stages)
