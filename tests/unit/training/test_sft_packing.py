"""Packed trajectories: all there, none too many, and none sees another."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from services.training.sft.packing import PackingCollator, cheapest_packs, pack
from services.training.sft.rows import IGNORED

EXAMPLES = [
    {"input_ids": [3, *range(20, 20 + length), 1], "labels": [IGNORED] * (length + 1) + [1]}
    for length in (3, 9, 5, 2, 2)
]


@given(st.lists(st.integers(1, 20), max_size=30), st.integers(20, 60))
def test_every_row_is_in_one_pack_and_no_pack_is_too_full(lengths: list[int], capacity: int) -> None:
    packs = pack(lengths, capacity)
    assert sorted(row for rows in packs for row in rows) == list(range(len(lengths)))
    fullness = [sum(lengths[row] for row in rows) for rows in packs]
    assert all(0 < tokens <= capacity for tokens in fullness)
    assert sum(2 * tokens <= capacity for tokens in fullness) <= 1, "two packs that are half empty would be one"
    assert packs == pack(lengths, capacity)


def test_packs_by_hand() -> None:
    """Capacity 10, longest first: 7 opens a pack, 5 the next, 4 joins the 5, 3 the 7, and 2 opens a third."""
    assert pack([3, 5, 2, 7, 4], 10) == [[3, 0], [1, 4], [2]]
    with pytest.raises(ValueError, match="row 1 has 11 tokens"):
        pack([3, 11], 10)


@pytest.mark.parametrize(
    ("lengths", "hidden_size", "packs"),
    [
        # 10 rows of 60 beside one of 100: eleven packs of 100 would be 1,100 tokens, two of 400 are 800, four of 180 are 720.
        ([100, *[60] * 10], 10_000, 4),
        # In a narrow model attention over 180 tokens costs more than that padding.
        ([100, *[60] * 10], 4, 11),
        # Rows of one length need no padding, however they are packed: the narrowest.
        ([100] * 8, 10_000, 8),
    ],
)
def test_packs_are_as_wide_as_it_pays(lengths: list[int], hidden_size: int, packs: int) -> None:
    assert len(cheapest_packs(lengths, 400, hidden_size)) == packs


def test_positions_begin_again_and_nothing_predicts_a_first_token() -> None:
    batch = PackingCollator(0, 8, 32)(
        [
            {"input_ids": [5, 6, 7], "labels": [5, 6, 7]},
            {"input_ids": [8, 9], "labels": [IGNORED, 9]},
            {"input_ids": [1] * 7, "labels": [1] * 7},
        ]
    )
    assert batch["input_ids"].tolist() == [[1] * 7, [5, 6, 7, 8, 9, 0, 0]]
    assert batch["position_ids"].tolist() == [[*range(7)], [0, 1, 2, 0, 1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED] + [1] * 6, [IGNORED, 6, 7, IGNORED, 9, IGNORED, IGNORED]]
    assert batch["tokens"].tolist() == [7, 5]


@given(st.lists(st.integers(2, 12), min_size=1, max_size=10), st.integers(12, 40))
def test_a_batch_holds_every_row_as_it_was(lengths: list[int], capacity: int) -> None:
    examples = [
        {"input_ids": [100 * number + at for at in range(length)], "labels": [IGNORED, *range(1, length)]}
        for number, length in enumerate(lengths, 1)
    ]
    batch = PackingCollator(0, capacity, 32)(examples)
    found = [(ids, labels) for ids, labels, _, _ in rows_of(batch)]
    assert sorted(found) == sorted((example["input_ids"], example["labels"]) for example in examples)
    assert int(batch["tokens"].sum()) == sum(lengths)


def rows_of(batch: Mapping[str, torch.Tensor]) -> list[tuple[list[int], list[int], int, slice]]:
    """(input_ids, labels, pack, columns) of each trajectory in a batch, by its positions."""
    found = []
    for number, tokens in enumerate(batch["tokens"].tolist()):
        positions = batch["position_ids"][number, :tokens].tolist()
        starts = [at for at, position in enumerate(positions) if position == 0]
        for start, end in zip(starts, [*starts[1:], tokens], strict=True):
            columns = slice(start, end)
            ids, labels = (batch[name][number, columns].tolist() for name in ("input_ids", "labels"))
            found.append((ids, labels, number, columns))
    return found


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_logits_of_a_packed_row_are_those_of_the_row_alone(tiny_directory: Path, attention: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_directory, attn_implementation=attention).train()
    batch = PackingCollator(0, 16, 32)(EXAMPLES)
    assert len(batch["tokens"]) < len(EXAMPLES)
    packed = logits_of(model, batch["input_ids"], position_ids=batch["position_ids"])
    for ids, _, number, columns in rows_of(batch):
        alone = logits_of(model, torch.tensor([ids]))[0]
        assert torch.allclose(packed[number, columns], alone, atol=1e-5)


def test_a_trajectory_sees_nothing_of_its_neighbour(tiny_directory: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_directory)
    batch = PackingCollator(0, 16, 32)(EXAMPLES)
    before = logits_of(model, batch["input_ids"], position_ids=batch["position_ids"])
    _, _, number, first = rows_of(batch)[0]
    other = batch["input_ids"].clone()
    other[number, first] = 50
    after = logits_of(model, other, position_ids=batch["position_ids"])
    is_same = torch.ones_like(other, dtype=torch.bool)
    is_same[number, first] = False
    assert torch.allclose(after[is_same], before[is_same], atol=1e-6)
    assert not torch.allclose(after[number, first], before[number, first], atol=1e-2)


def logits_of(model: Any, input_ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=input_ids, use_cache=False, **inputs).logits
    return logits
