"""docs/recipe.md names every key of a recipe, and the example recipes are valid."""

import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from shared.contracts.recipe import Recipe

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "examples" / "recipes").glob("*.toml"))


def keys(model: type[BaseModel]) -> set[str]:
    """Every key of a recipe and of the tables in it."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        found.add(name)
        parts = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for part in parts:
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= keys(part)
    return found


@pytest.mark.parametrize("key", sorted(keys(Recipe)))
def test_every_key_is_documented(key: str) -> None:
    document = (ROOT / "docs" / "recipe.md").read_text()
    assert f"`{key}`" in document or f"[{key}]" in document, f"docs/recipe.md does not name {key}"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_example_recipe_is_valid(path: Path) -> None:
    content = tomllib.loads(path.read_text())
    assert content.pop("name") == path.stem
    assert Recipe.model_validate(content).model.base.rpartition("/")[2].lower() == path.stem
