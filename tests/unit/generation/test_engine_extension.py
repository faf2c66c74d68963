"""Tokens of several adapters in one step: each is multiplied by its own, one without any is left alone."""

from types import SimpleNamespace

import hypothesis.strategies as st
import torch
from hypothesis import given

from services.generation.engine_extension import _add_lora_linear

SLOTS, RANK, IN, SIZES = 3, 2, 4, (3, 5)


@given(st.lists(st.integers(-1, SLOTS - 1), min_size=1, max_size=12), st.integers(0, 2**31))
def test_each_token_has_its_own_adapter(slot_of_token: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(len(slot_of_token), IN, dtype=torch.float64)
    y = torch.randn(len(slot_of_token), sum(SIZES), dtype=torch.float64)
    a = tuple(torch.randn(SLOTS, 1, RANK, IN, dtype=torch.float64) for _ in SIZES)
    b = tuple(torch.randn(SLOTS, 1, size, RANK, dtype=torch.float64) for size in SIZES)
    expected = y.clone()
    for token, slot in enumerate(slot_of_token):
        if slot >= 0:
            delta = torch.cat(
                [2.0 * (b_of[slot, 0] @ (a_of[slot, 0] @ x[token])) for a_of, b_of in zip(a, b, strict=True)]
            )
            expected[token] += delta

    _add_lora_linear(SimpleNamespace(token_lora_indices=torch.tensor(slot_of_token)), y, x, a, b, 2.0, SIZES)

    torch.testing.assert_close(y, expected)
