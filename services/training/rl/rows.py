"""One response to train on: its tokens, what made them likely when they were sampled, its actions and their advantages."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from services.training.rl.actions import UNTRAINED, cut_actions, ratio_unit
from services.training.rl.advantages import Reward, group_relative, leave_one_out
from shared.contracts.recipe import AdvantageEstimator, RlRecipe


@dataclass(frozen=True)
class Sampled:
    """A response as it was sampled. `segments` has the segment of each response token, or UNTRAINED.

    `is_fresh`: sampled with the very weights that are trained now.
    """

    prompt_ids: list[int]
    token_ids: list[int]
    logprobs: list[float]
    segments: list[int]
    is_fresh: bool


@dataclass(frozen=True)
class Row:
    """A response to train on.

    `actions` has one entry per response token: its action, or UNTRAINED. `advantages` and `weights` have one per
    action; the weights of a batch sum to 1 (S2R: mean over responses of the mean over a response's actions).
    """

    prompt_ids: list[int]
    token_ids: list[int]
    old_logprobs: list[float]
    actions: list[int]
    advantages: list[float]
    weights: list[float]
    is_fresh: bool

    @property
    def tokens(self) -> int:
        """Of prompt and response."""
        return len(self.prompt_ids) + len(self.token_ids)


@dataclass
class Plan:
    """What one step trains on, and its figures: also what was left out and why."""

    rows: list[Row] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    def telling_advantages(self) -> list[float]:
        """Of every trained action."""
        pairs = (pair for row in self.rows for pair in zip(row.advantages, row.weights, strict=True))
        return [advantage for advantage, weight in pairs if weight]


def outcome_advantages(rewards_G: Sequence[float], recipe: RlRecipe) -> list[list[Reward]]:
    """What each of a question's responses is worth beside the others, by the recipe's estimator: one advantage a response."""
    if recipe.advantage is AdvantageEstimator.GRPO:
        return [[advantage] for advantage in group_relative(rewards_G, standardise=recipe.standardise)]
    return [[advantage] for advantage in leave_one_out(rewards_G)]


def weighted_rows(responses: Sequence[Sampled], advantages: Sequence[Sequence[Reward]], recipe: RlRecipe) -> list[Row]:
    """The rows of a step. `advantages`: of each response one (outcome level), or one a segment (process level).

    A response without any action to train on is left out.
    """
    drafts = [_draft(response, of_units, recipe) for response, of_units in zip(responses, advantages, strict=True)]
    trained = [draft for draft in drafts if any(draft.weights)]
    return [_weighted(row, len(trained)) for row in trained]


def _draft(response: Sampled, advantages: Sequence[Reward], recipe: RlRecipe) -> Row:
    """A row whose weights are 1 for the actions that are trained on: those with an advantage and a token."""
    actions, advantages_A = cut_actions(response.segments, advantages, recipe.level, ratio_unit(recipe))
    present = set(actions)
    is_trained = [advantage is not None and index in present for index, advantage in enumerate(advantages_A)]
    return Row(
        response.prompt_ids,
        response.token_ids,
        response.logprobs,
        [action if action != UNTRAINED and is_trained[action] else UNTRAINED for action in actions],
        [advantage or 0.0 for advantage in advantages_A],
        [float(trained) for trained in is_trained],
        response.is_fresh,
    )


def _weighted(row: Row, rows: int) -> Row:
    share = 1.0 / (rows * sum(row.weights))
    return replace(row, weights=[weight * share for weight in row.weights])
