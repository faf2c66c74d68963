"""Rewards to advantages (pure arithmetic). S2R, arXiv 2502.12853: Eq. 2-3 (outcome level), Eq. 4-6 (process level);
GRPO, arXiv 2402.03300 (outcome level).

The KL part of S2R's advantage, -beta * log(pi / pi_ref), is added where the log-probabilities are (`losses`).
Invariant: equal rewards give advantages of exactly 0.0, also where a floating-point mean would not equal its terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

# What an action earned, or None where it could not be judged: such an action has no advantage and is not trained on.
Reward = float | None
Context = tuple[Reward, ...]


def leave_one_out(rewards_G: Sequence[float]) -> list[float]:
    """Advantage of each of G responses of a question: its reward minus the mean of the other G - 1 (Eq. 3).

    One response alone has no baseline: its advantage is 0.
    """
    if not has_variance(rewards_G):
        return [0.0] * len(rewards_G)
    total, others = sum(rewards_G), len(rewards_G) - 1
    return [reward - (total - reward) / others for reward in rewards_G]


def group_relative(rewards_G: Sequence[float], *, standardise: bool) -> list[float]:
    """Advantage of each of G responses of a question: its reward minus their mean, divided by their standard deviation (GRPO).

    The deviation has G - 1 in its denominator. Without `standardise` a question counts as much as its rewards differ (Dr. GRPO, arXiv
    2503.20783). One response alone has an advantage of 0.
    """
    if not has_variance(rewards_G):
        return [0.0] * len(rewards_G)
    mean, deviation = fmean(rewards_G), stdev(rewards_G) if standardise else 1.0
    return [(reward - mean) / deviation for reward in rewards_G]


def has_variance(values: Sequence[object]) -> bool:
    """Whether the responses of a group differ in what they earned: a group that does not, teaches nothing."""
    return any(value != values[0] for value in values)


class BatchBaseline:
    """Mean reward of the batch's actions with the same reward context, the earlier rewards of the trajectory (Eq. 6)."""

    def advantages(self, rewards_B_A: Sequence[Sequence[Reward]]) -> list[list[Reward]]:
        """Reward minus baseline of every action; None where the action has no reward."""
        rewards_of: dict[Context, list[float]] = {}
        for context, reward in _actions(rewards_B_A):
            rewards_of.setdefault(context, []).append(reward)
        baseline = {context: _mean(rewards) for context, rewards in rewards_of.items()}
        return _minus(rewards_B_A, baseline)


@dataclass
class RunningBaseline:
    """Mean over all earlier batches of a run, 0 until `minimum` actions of a context were seen (as S2R's released code).

    `seen` maps a context to [count, sum]; it belongs into the checkpoint.
    """

    seen: dict[Context, tuple[int, float]] = field(default_factory=dict)
    minimum: int = 10

    def advantages(self, rewards_B_A: Sequence[Sequence[Reward]]) -> list[list[Reward]]:
        """Reward minus the baseline of the batches before this one, which is counted in afterwards."""
        means = {context: total / count for context, (count, total) in self.seen.items() if count >= self.minimum}
        baseline = {context: means.get(context, 0.0) for context, _ in _actions(rewards_B_A)}
        advantages = _minus(rewards_B_A, baseline)
        for context, reward in _actions(rewards_B_A):
            count, total = self.seen.get(context, (0, 0.0))
            self.seen[context] = (count + 1, total + reward)
        return advantages

    def dump(self) -> list[list[Any]]:
        """JSON form."""
        return [[list(context), count, total] for context, (count, total) in sorted(self.seen.items(), key=repr)]

    @staticmethod
    def restore(dumped: Sequence[Sequence[Any]]) -> "RunningBaseline":
        """Inverse of `dump`."""
        return RunningBaseline({tuple(context): (int(count), float(total)) for context, count, total in dumped})


def _actions(rewards_B_A: Sequence[Sequence[Reward]]) -> list[tuple[Context, float]]:
    return [
        (tuple(rewards_A[:index]), reward)
        for rewards_A in rewards_B_A
        for index, reward in enumerate(rewards_A)
        if reward is not None
    ]


def _minus(rewards_B_A: Sequence[Sequence[Reward]], baseline: dict[Context, float]) -> list[list[Reward]]:
    return [
        [
            None if reward is None else reward - baseline[tuple(rewards_A[:index])]
            for index, reward in enumerate(rewards_A)
        ]
        for rewards_A in rewards_B_A
    ]


def _mean(rewards: Sequence[float]) -> float:
    return sum(rewards) / len(rewards) if has_variance(rewards) else rewards[0]
