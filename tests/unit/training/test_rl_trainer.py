"""The RL trainer takes steps in this process: ratios of 1 at the start, with or without dropout, and what it logs."""

from pathlib import Path

import pytest
import torch

from services.training.policies import load
from shared.contracts.recipe import LoraRecipe, RatioUnit, RlRecipe
from tests.unit.training.test_rl_batches import group, response
from tests.unit.training.trainers import points, rl_trainer, sampled_by, start_at

GROUPS = [
    group(response(1.0, [1.0, 1.0]), response(-1.0, [-1.0, 1.0, -1.0, 1.0]), version=5),
    group(response(1.0, [1.0, 1.0]), response(-1.0, [-1.0, -1.0]), version=5),
]
QUICK = {
    "steps": 2,
    "k": 2,
    "groups_per_step": 2,
    "micro_batch_size": 2,
    "learning_rate": 1e-2,
    "publish_every_steps": 2,
}


@pytest.mark.parametrize("unit", list(RatioUnit))
def test_dropout_is_off_so_that_ratios_begin_at_one(tiny_directory: Path, tmp_path: Path, unit: RatioUnit) -> None:
    recipe = RlRecipe.model_validate({**QUICK, "lora": LoraRecipe(rank=4, alpha=8, dropout=0.5), "ratio": unit})
    loaded = load(start_at(tiny_directory), recipe.lora, bf16=False, kl=True, seed=0)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    for module in loaded.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    trainer = rl_trainer(loaded, recipe, sampled_by(loaded.model, GROUPS), tmp_path)
    trainer.train()
    first, second = points(trainer)
    assert first["ratio_mean"] == pytest.approx(1.0, abs=1e-4)
    assert first["ratio_std"] == pytest.approx(0.0, abs=1e-4)
    assert first["engine_logprob_gap"] == pytest.approx(0.0, abs=1e-5)
    assert second["ratio_std"] > 1e-3
