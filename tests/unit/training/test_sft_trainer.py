"""The SFT trainer takes steps in this process: its loss, its KL, its precision."""

from pathlib import Path

import pytest
import torch

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


@pytest.mark.parametrize(("kl_beta", "lora"), [(0.0, None), (0.1, None), (0.1, LoraRecipe(rank=4, alpha=8))])
@pytest.mark.parametrize(
    "change",
    [
        {"packing": True, "max_tokens": 32},
        {"micro_batch_size": 1},
        {"packing": True, "micro_batch_size": 4},
        {"gradient_checkpointing": True},
    ],
)
def test_how_a_step_is_computed_changes_neither_its_loss_nor_its_gradient(
    tiny_directory: Path, tmp_path: Path, kl_beta: float, lora: LoraRecipe | None, change: dict[str, object]
) -> None:
    options = {**QUICK, "kl_beta": kl_beta, "lora": lora}
    plain = sft_trainer(tiny_directory, SftRecipe.model_validate(options), tmp_path)
    other = sft_trainer(tiny_directory, SftRecipe.model_validate({**options, **change}), tmp_path)
    for trainer in (plain, other):
        trainer.train()
    for expected, found in zip(points(plain), points(other), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], abs=1e-4)
        assert found.get("kl") == pytest.approx(expected.get("kl"), abs=1e-5)
    assert other.model.is_gradient_checkpointing is ("gradient_checkpointing" in change)
    assert other.attempt.tokens == plain.attempt.tokens
    for before, after in zip(plain.model.parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(before, after, atol=1e-4)
