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


@pytest.mark.parametrize("kl_beta", [0.0, 0.1])
@pytest.mark.parametrize(
    "change", [{"packing": True, "max_tokens": 32}, {"micro_batch_size": 1}, {"packing": True, "micro_batch_size": 4}]
)
def test_packing_and_micro_batches_change_neither_loss_nor_step(
    tiny_directory: Path, tmp_path: Path, kl_beta: float, change: dict[str, object]
) -> None:
    plain = sft_trainer(tiny_directory, SftRecipe.model_validate({**QUICK, "kl_beta": kl_beta}), tmp_path)
    other = sft_trainer(tiny_directory, SftRecipe.model_validate({**QUICK, "kl_beta": kl_beta, **change}), tmp_path)
    for trainer in (plain, other):
        trainer.train()
    for expected, found in zip(points(plain), points(other), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], abs=1e-4)
        assert found.get("kl") == pytest.approx(expected.get("kl"), abs=1e-5)
    assert other.attempt.tokens == plain.attempt.tokens
    for before, after in zip(plain.model.parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(before, after, atol=1e-4)
