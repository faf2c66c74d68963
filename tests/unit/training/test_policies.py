"""Loading the start policy, its reference, and what is published."""

from pathlib import Path
from typing import Any

import pytest
import torch

from services.training.failures import RunError
from services.training.policies import load, save_policy
from shared.artifacts import hash_directory
from shared.contracts.policies import PolicyKind
from shared.contracts.recipe import LoraRecipe
from shared.contracts.runs import RunFailure
from tests.unit.training.trainers import start_at

LORA = LoraRecipe(rank=4, alpha=8)
IDS = torch.tensor([[3, 20, 21, 22, 4]])


def trained_adapter(tiny_directory: Path, directory: Path) -> Any:
    """A model whose adapter does something, published to `directory`."""
    model = load(start_at(tiny_directory), LORA, bf16=False, kl=False, seed=0).model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape))
    assert save_policy(model, start_at(tiny_directory), directory) is PolicyKind.ADAPTER
    return model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(IDS).logits
    return result


def test_an_adapter_is_published_with_the_same_bytes_again(tiny_directory: Path, tmp_path: Path) -> None:
    model = trained_adapter(tiny_directory, tmp_path / "first")
    save_policy(model, start_at(tiny_directory), tmp_path / "again")
    assert hash_directory(tmp_path / "first") == hash_directory(tmp_path / "again")
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert str(tiny_directory) not in (tmp_path / "first" / "adapter_config.json").read_text()


def test_a_checkpoint_keeps_every_file_of_its_start_but_the_weights(tiny_directory: Path, tmp_path: Path) -> None:
    loaded = load(start_at(tiny_directory), None, bf16=False, kl=False, seed=0)
    with torch.no_grad():
        next(loaded.model.parameters()).add_(0.5)
    assert save_policy(loaded.model, start_at(tiny_directory), tmp_path / "out") is PolicyKind.CHECKPOINT
    names = {path.name for path in tiny_directory.iterdir()}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    changed = {name for name in names if (tiny_directory / name).read_bytes() != (tmp_path / "out" / name).read_bytes()}
    assert changed == {"model.safetensors"}


def test_training_goes_on_with_an_adapter_and_refers_to_it_as_it_was(tiny_directory: Path, tmp_path: Path) -> None:
    before = logits(trained_adapter(tiny_directory, tmp_path / "adapter"))
    loaded = load(start_at(tiny_directory, tmp_path / "adapter"), LORA, bf16=False, kl=True, seed=0)
    assert torch.allclose(logits(loaded.model), before, atol=1e-5)
    assert any(parameter.requires_grad for parameter in loaded.model.parameters())
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    assert loaded.reference is not None
    with loaded.reference.of(loaded.model) as reference:
        assert torch.allclose(logits(reference), before, atol=1e-5)
    assert not torch.allclose(logits(loaded.model), before, atol=1e-2)


def test_a_new_adapter_refers_to_the_model_without_it(tiny_directory: Path, tmp_path: Path) -> None:
    plain = logits(load(start_at(tiny_directory), None, bf16=False, kl=False, seed=0).model)
    loaded = load(start_at(tiny_directory), LORA, bf16=False, kl=True, seed=0)
    assert torch.allclose(logits(loaded.model), plain, atol=1e-6), "a fresh adapter changes nothing"
    assert loaded.reference is not None
    assert loaded.reference.frozen is None


def test_full_fine_tuning_merges_the_adapter_it_starts_from(tiny_directory: Path, tmp_path: Path) -> None:
    before = logits(trained_adapter(tiny_directory, tmp_path / "adapter"))
    merged = load(start_at(tiny_directory, tmp_path / "adapter"), None, bf16=False, kl=False, seed=0).model
    assert torch.allclose(logits(merged), before, atol=1e-4)
    assert all(parameter.requires_grad for parameter in merged.parameters())


def test_another_rank_than_the_adapters_is_refused(tiny_directory: Path, tmp_path: Path) -> None:
    trained_adapter(tiny_directory, tmp_path / "adapter")
    with pytest.raises(RunError, match="rank 4") as refused:
        load(start_at(tiny_directory, tmp_path / "adapter"), LoraRecipe(rank=8, alpha=8), bf16=False, kl=True, seed=0)
    assert refused.value.failure is RunFailure.BAD_MODEL


def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be trained") as refused:
        load(start_at(tmp_path), None, bf16=False, kl=False, seed=0)
    assert refused.value.failure is RunFailure.BAD_MODEL
