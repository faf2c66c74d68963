"""The demos: which recipe, which base model and which questions `headwater demo --recipe NAME` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

RECIPES_DIRECTORY = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Demo:
    """One demo. `questions`: module and arguments that write its questions as NDJSON (`--out` and `--seed` are added).

    `stage_seconds` is what each stage took on 2 CPU cores; with it the demo estimates what is left.
    """

    model: str
    recipe: Path
    questions: str
    stage_seconds: Mapping[str, float] = field(default_factory=dict)


RECIPES: Mapping[str, Demo] = {
    "tiny": Demo(
        model="tiny",
        recipe=RECIPES_DIRECTORY / "tiny.toml",
        questions="examples.questions.arithmetic --count 1600 --eval-count 600 --max-digits 1 --min-terms 3 --max-terms 5",
        stage_seconds={
            "eval-base": 39,
            "teach": 4,
            "sft-0": 153,
            "eval-sft-0": 18,
            "probe-sft-0": 92,
            "sft-1": 101,
            "eval-sft-1": 19,
            "probe-sft-1": 76,
            "rl": 238,
            "eval-rl": 16,
        },
    ),
    "smollm2": Demo(
        model="smollm2",
        recipe=RECIPES_DIRECTORY / "smollm2.toml",
        questions="examples.questions.word_problems --count 160 --eval-count 48",
    ),
}
