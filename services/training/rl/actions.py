"""Which tokens of a response share ONE ratio, and so one advantage: that is an action.

The whole response, a segment, or a token, as the recipe says. What a tool wrote (`observe`) is in no action.
"""

from collections.abc import Sequence

from services.training.rl.advantages import Reward
from shared.contracts.recipe import RatioUnit, RewardLevel, RlRecipe
from shared.contracts.verdicts import ScoredSegment, SegmentKind
from shared.trajectories import segments as trajectories

UNTRAINED = -1


def ratio_unit(recipe: RlRecipe) -> RatioUnit:
    """What the recipe says, or what has one reward."""
    return recipe.ratio or (RatioUnit.RESPONSE if recipe.level is RewardLevel.OUTCOME else RatioUnit.ACTION)


def token_segments(token_ends: Sequence[int], scored_segments: Sequence[ScoredSegment]) -> list[int]:
    """The segment of each response token, UNTRAINED in one that a tool wrote. The end token is the last segment's.

    `token_ends` has the character offset after each token; a response without segments is one.
    """
    if not scored_segments:
        return [0] * len(token_ends)
    segments = [
        trajectories.Segment(trajectories.SegmentKind(segment.kind), segment.start, segment.end)
        for segment in scored_segments
    ]
    spans = trajectories.segment_token_spans(token_ends, segments)
    found: list[int] = []
    for index, (segment, (first, last)) in enumerate(zip(scored_segments, spans, strict=True)):
        found += [UNTRAINED if segment.kind is SegmentKind.OBSERVE else index] * (last - first)
    return found


def cut_actions(
    segments_T: Sequence[int], advantages: Sequence[Reward], level: RewardLevel, unit: RatioUnit
) -> tuple[list[int], list[Reward]]:
    """(the action of each token or UNTRAINED, the advantage of each action).

    `advantages`: one at the outcome level, one a segment at the process level; an action has the one that it lies in.
    """
    if unit in (RatioUnit.RESPONSE, RatioUnit.SEQUENCE):
        return [0 if segment != UNTRAINED else UNTRAINED for segment in segments_T], list(advantages)
    is_outcome = level is RewardLevel.OUTCOME
    of_segments = [advantages[0]] * (max(segments_T, default=UNTRAINED) + 1) if is_outcome else list(advantages)
    if unit is RatioUnit.ACTION:
        return list(segments_T), of_segments
    tokens = [token if segment != UNTRAINED else UNTRAINED for token, segment in enumerate(segments_T)]
    return tokens, [of_segments[segment] if segment != UNTRAINED else None for segment in segments_T]
