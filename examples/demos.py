"""The demos: which recipe, which base model and which questions `headwater demo --recipe NAME` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.contracts.campaigns import StageName

RECIPES_DIRECTORY = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Demo:
    """One demo. `questions`: module and arguments that write its questions as NDJSON (`--out` and `--seed` are added).

    `stage_seconds` is what each stage took on 2 CPU cores; with it the demo estimates what is left.
    """

    model: str
    recipe: Path
    questions: str
    stage_seconds: Mapping[StageName, float]


RECIPES: Mapping[str, Demo] = {
    "tiny": Demo(
        model="tiny",
        recipe=RECIPES_DIRECTORY / "tiny.toml",
        questions="examples.questions.arithmetic --count 4000 --eval-count 600 --max-digits 1 --min-terms 3 --max-terms 5",
        stage_seconds={
            StageName.REGISTER: 1,
            StageName.EVAL_BASE: 32,
            StageName.TEACH: 3,
            StageName.DISTILL: 1,
            StageName.SFT_0: 79,
            StageName.EVAL_SFT_0: 12,
            StageName.PROBE_SFT_0: 158,
            StageName.VERIFY: 0,
            StageName.BUILD: 1,
            StageName.SFT_1: 67,
            StageName.EVAL_SFT_1: 11,
            StageName.PROBE_SFT_1: 30,
            StageName.RL: 500,
            StageName.EVAL_RL: 12,
        },
    ),
    "smollm2": Demo(
        model="smollm2",
        recipe=RECIPES_DIRECTORY / "smollm2.toml",
        questions="examples.questions.word_problems --count 300 --eval-count 60 --max-solution 120",
        stage_seconds={  # on a busy machine
            StageName.REGISTER: 2,
            StageName.EVAL_BASE: 179,
            StageName.TEACH: 3,
            StageName.DISTILL: 3,
            StageName.SFT_0: 2063,
            StageName.EVAL_SFT_0: 75,
            StageName.PROBE_SFT_0: 671,
            StageName.VERIFY: 0,
            StageName.BUILD: 1,
            StageName.SFT_1: 489,
            StageName.EVAL_SFT_1: 68,
            StageName.PROBE_SFT_1: 153,
            StageName.RL: 196,
            StageName.EVAL_RL: 75,
        },
    ),
}
