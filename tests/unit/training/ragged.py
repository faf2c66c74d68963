"""Batches of responses of different lengths, cut into actions of different lengths, in float64: what the loss is computed of."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor


@dataclass(frozen=True)
class Ragged:
    """`actions` (B, T) names each token's action or -1; `advantages` and `weights` are (B, A), the other log-probabilities (B, T)."""

    logprobs: Tensor
    old: Tensor
    reference: Tensor
    actions: Tensor
    advantages: Tensor
    weights: Tensor

    @property
    def widest(self) -> int:
        """A."""
        return self.weights.shape[1]

    def tokens_of(self, row: int, action: int) -> list[int]:
        """The columns of an action's tokens."""
        return [column for column, of in enumerate(self.actions[row].tolist()) if of == action]

    def rows(self, numbers: list[int]) -> "Ragged":
        """These rows, in this order."""
        return Ragged(*(tensor[numbers] for tensor in self._tensors()))

    def padded(self, tokens: int, actions: int) -> "Ragged":
        """With so many more columns, the log-probabilities there being anything."""
        logprobs, old, reference = (
            torch.nn.functional.pad(tensor, (0, tokens), value=value)
            for tensor, value in ((self.logprobs, -3.0), (self.old, -1.0), (self.reference, -2.0))
        )
        advantages = torch.nn.functional.pad(self.advantages, (0, actions), value=5.0)
        weights = torch.nn.functional.pad(self.weights, (0, actions))
        return Ragged(
            logprobs, old, reference, torch.nn.functional.pad(self.actions, (0, tokens), value=-1), advantages, weights
        )

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.logprobs, self.old, self.reference, self.actions, self.advantages, self.weights


@st.composite
def ragged(draw: st.DrawFn) -> Ragged:
    """1 to 4 responses of 1 to 4 actions of 1 to 4 tokens, prompts before and untrained tokens between them."""
    lengths = draw(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=4))
    prompts = draw(st.lists(st.integers(1, 3), min_size=len(lengths), max_size=len(lengths)))
    spread = draw(st.sampled_from([0.0, 0.01, 0.3, 2.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    rows = [
        [-1] * prompt + [action for action, length in enumerate(of_row) for action in [action] * length]
        for prompt, of_row in zip(prompts, lengths, strict=True)
    ]
    shape = len(rows), max(map(len, rows))
    actions = torch.tensor([row + [-1] * (shape[1] - len(row)) for row in rows])
    is_observed = torch.rand(shape, generator=generator) < 0.1
    logprobs = -torch.rand(shape, generator=generator, dtype=torch.float64) - 0.1
    drifts = torch.randn(2, *shape, generator=generator, dtype=torch.float64) * spread
    widest = max(map(len, lengths))
    is_action = torch.tensor([[action < len(of_row) for action in range(widest)] for of_row in lengths])
    advantages = torch.randn(shape[0], widest, generator=generator, dtype=torch.float64)
    weights = torch.rand(shape[0], widest, generator=generator, dtype=torch.float64) * is_action
    return Ragged(
        logprobs, logprobs - drifts[0], logprobs - drifts[1], actions.masked_fill(is_observed, -1), advantages, weights
    )
