"""The SFT trainer takes steps in this process: its loss, its KL, its precision."""

from pathlib import Path

import pytest

from shared.contracts.recipe import LoraRecipe, SftRecipe
from tests.unit.training.trainers import points, sft_trainer

QUICK = {"steps": 2, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-2, "warmup_fraction": 0.0}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("lora", [None, LoraRecipe(rank=4, alpha=8)])
def test_the_kl_to_the_start_policy_is_exactly_zero_at_the_start(
    tiny_directory: Path, tmp_path: Path, bf16: bool, lora: LoraRecipe | None
) -> None:
    recipe = SftRecipe.model_validate({**QUICK, "kl_beta": 0.1, "bf16": bf16, "lora": lora})
    trainer = sft_trainer(tiny_directory, recipe, tmp_path)
    trainer.train()
    first, second = points(trainer)
    assert first["kl"] == 0.0
    assert second["kl"] > 0.0
