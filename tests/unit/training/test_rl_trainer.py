"""The RL trainer takes steps in this process: ratios of 1 at the start, with or without dropout, and what it logs."""

from pathlib import Path

import pytest
import torch

from services.training.policies import load
from shared.contracts.recipe import LoraRecipe, RatioUnit, RewardLevel, RlRecipe
from tests.unit.training.test_rl_batches import COMBINATIONS, group, response
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


@pytest.mark.parametrize("change", [{"micro_batch_size": 1}, {"micro_batch_size": 4}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize(
    ("level", "lora"), [(RewardLevel.OUTCOME, None), (RewardLevel.PROCESS, LoraRecipe(rank=4, alpha=8))]
)
def test_how_a_step_is_computed_changes_neither_its_loss_nor_its_gradient(
    tiny_directory: Path, tmp_path: Path, level: RewardLevel, lora: LoraRecipe | None, change: dict[str, object]
) -> None:
    trainers = []
    for options in ({}, change):
        recipe = RlRecipe.model_validate({**QUICK, "lora": lora, "level": level, **options})
        loaded = load(start_at(tiny_directory), lora, bf16=False, kl=True, seed=0)
        trainers.append(rl_trainer(loaded, recipe, sampled_by(loaded.model, GROUPS), tmp_path))
        trainers[-1].train()
    assert trainers[1].model.is_gradient_checkpointing is ("gradient_checkpointing" in change)
    for expected, found in zip(points(trainers[0]), points(trainers[1]), strict=True):
        for name in ("loss", "grad_norm", "kl", "ratio_mean", "ratio_max", "ratio_std", "negative_logprob_mean"):
            assert found[name] == pytest.approx(expected[name], abs=1e-4)
    for before, after in zip(trainers[0].model.parameters(), trainers[1].model.parameters(), strict=True):
        assert torch.allclose(before, after, atol=1e-4)


@pytest.mark.parametrize("recipe", COMBINATIONS)
def test_groups_of_equal_rewards_move_no_weight_at_all(
    tiny_directory: Path, tmp_path: Path, recipe: dict[str, object]
) -> None:
    equal = [group(response(1.0, [1.0, 1.0]), response(1.0, [1.0, 1.0]), version=5)] * 2
    options = RlRecipe.model_validate({**QUICK, "weight_decay": 0.1, **recipe})
    loaded = load(start_at(tiny_directory), None, bf16=False, kl=True, seed=0)
    before = [parameter.detach().clone() for parameter in loaded.model.parameters()]
    trainer = rl_trainer(loaded, options, sampled_by(loaded.model, equal), tmp_path)
    trainer.train()
    for parameter, start in zip(loaded.model.parameters(), before, strict=True):
        assert torch.equal(parameter, start)
    assert [point["zero_variance_rate"] for point in points(trainer)] == [1.0, 1.0]
