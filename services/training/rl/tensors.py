"""Rows to padded tensors. Shapes: B rows, T tokens of prompt and response, A actions; padding is on the right."""

from collections.abc import Sequence

import torch
from torch import Tensor

from services.training.rl.actions import UNTRAINED
from services.training.rl.rows import Row


def pad_rows(rows: Sequence[Row], pad_token_id: int, micro_batches: int) -> dict[str, Tensor]:
    """One batch; every value at [b, t] is about token t of row b.

    The number of rows is rounded up to a multiple of `micro_batches` with rows that contribute nothing.
    """
    missing = -len(rows) % micro_batches if rows else micro_batches
    blank = Row([pad_token_id], [pad_token_id], [0.0], [UNTRAINED], [0.0], [0.0], is_fresh=False)
    padded = [*rows, *[blank] * missing]
    return {
        "input_ids_B_T": _pad([row.prompt_ids + row.token_ids for row in padded], pad_token_id, torch.long),
        "attention_mask_B_T": _pad([[1] * (len(row.prompt_ids) + len(row.token_ids)) for row in padded], 0, torch.long),
        "actions_B_T": _pad([[UNTRAINED] * len(row.prompt_ids) + row.actions for row in padded], UNTRAINED, torch.long),
        "old_logprobs_B_T": _pad(
            [[0.0] * len(row.prompt_ids) + row.old_logprobs for row in padded], 0.0, torch.float32
        ),
        "advantages_B_A": _pad([row.advantages for row in padded], 0.0, torch.float32),
        "weights_B_A": _pad([row.weights for row in padded], 0.0, torch.float32),
        "is_fresh_B": torch.tensor([row.is_fresh for row in padded]),
    }


def share(rows: Sequence[Row], rank: int, processes: int) -> list[Row]:
    """The rows that this rank trains on: of every length as many as the others have."""
    return sorted(rows, key=lambda row: -row.tokens)[rank::processes]


def by_length(micro_batches: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The same rows in as many micro-batches of one size, the longest first, so that `trim` leaves little padding."""
    whole = {name: torch.cat([batch[name] for batch in micro_batches]) for name in micro_batches[0]}
    order = whole["attention_mask_B_T"].sum(dim=1).argsort(descending=True, stable=True)
    size = len(order) // len(micro_batches)
    return [
        {name: tensor[order[start : start + size]] for name, tensor in whole.items()}
        for start in range(0, len(order), size)
    ]


def trim(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cut the columns that are padding in every row of a micro-batch."""
    tokens = max(int(batch["attention_mask_B_T"].sum(dim=1).max()), 2)
    return {name: tensor[:, :tokens] if name.endswith("_B_T") else tensor for name, tensor in batch.items()}


def _pad(values: Sequence[Sequence[float]], fill: float, dtype: torch.dtype) -> Tensor:
    width = max(len(row) for row in values)
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in values], dtype=dtype)
