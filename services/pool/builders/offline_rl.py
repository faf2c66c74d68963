"""`offline-rl`: whole scored groups with what an offline trainer needs of them, one row a response.

Per segment the reward that it has online too (`shared.trajectories.rewards`), and its baseline: the mean reward of the segments at the
same place in trajectories of the same accuracy bin (S²R, offline RL), over everything that qualifies. Token arrays are null where the pool
holds them no more.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.pool.builders.builder import Candidate, Choice, Kinds, nothing_replayed
from services.pool.builders.lots import Lots, draw, generator_of
from services.pool.builders.rows import MESSAGES, SEGMENT_FIELDS, conversation
from services.pool.builders.scored import ScoredGroup, ScoredResponse
from shared.contracts.snapshots import OfflineRlRecipe
from shared.contracts.verdicts import ClaimedVerdict, ScoredSegment, SegmentKind, VerdictOutcome
from shared.trajectories.rewards import action_rewards, outcome_reward

_TOKENS, _LOGPROBS = pa.list_(pa.int32()), pa.list_(pa.float32())
_SEGMENTS = pa.list_(pa.struct([*SEGMENT_FIELDS, ("reward", pa.float32()), ("baseline", pa.float32())]))
SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("group_id", pa.string()),
        ("position", pa.int32()),
        ("policy_id", pa.string()),
        ("policy_version", pa.int32()),
        ("pass_rate", pa.float32()),
        ("accuracy_bin", pa.int32()),
        ("reward", pa.float32()),
        ("prompt", MESSAGES),
        ("completion", MESSAGES),
        ("finish_reason", pa.string()),
        ("segments", _SEGMENTS),
        ("rounds", pa.int32()),
        ("prompt_token_ids", _TOKENS),
        ("token_ids", _TOKENS),
        ("logprobs", _LOGPROBS),
        ("token_ends", _TOKENS),
    ]
)
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class OfflineRlBuilder:
    """Rows of groups by pass rate; all rows of a group have one lot."""

    recipe: OfflineRlRecipe
    seed: int
    dropped: Counter[str] = field(default_factory=Counter)
    schema: pa.Schema = SCHEMA
    _rewards: dict[Place, tuple[float, int]] = field(default_factory=lambda: defaultdict(lambda: (0.0, 0)))

    def candidates(self, item: ScoredGroup) -> Iterator[Candidate]:
        """The scored responses of a group whose pass rate qualifies."""
        scored = [response for response in item.responses if response.outcome is not VerdictOutcome.UNSCORED]
        if not scored:
            self.dropped["all_unscored"] += 1
            return
        pass_rate = sum(response.outcome is VerdictOutcome.CORRECT for response in scored) / len(scored)
        if not self.recipe.pass_rate_from <= pass_rate <= self.recipe.pass_rate_to:
            self.dropped["pass_rate"] += 1
            return
        self._count("unscored", len(item.responses) - len(scored))
        lot = draw(generator_of(self.seed, item.id))
        for response in scored:
            if goes_on_after_the_end(response.segments):
                self.dropped["goes_on_after_the_end"] += 1
            else:
                yield Candidate(self._record(item, response, pass_rate), 0, lot)

    def choose(self, kinds: Kinds, lots: Lots, replayable: int) -> Choice:
        """Whole groups up to the limit."""
        del kinds
        groups = np.unique(lots)
        limit = min(self.recipe.max_groups or len(groups), len(groups))
        self._count("max_groups", len(groups) - limit)
        kept = np.isin(lots, groups[:limit])
        return Choice(kept, nothing_replayed(replayable))

    def complete(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """With the baseline of each segment, which has one when its reward has."""
        segments = batch.column("segments")
        fields = segments.flatten()
        lengths = np.diff(segments.offsets.to_numpy())
        places = np.concatenate([np.arange(length) for length in lengths]) if len(lengths) else np.zeros(0, int)
        bins = np.repeat(batch.column("accuracy_bin").to_numpy(), lengths)
        baselines = self._baselines(bins, places, fields.field("reward").is_valid().to_numpy(zero_copy_only=False))
        columns = [fields.field(name) for name, _ in SEGMENT_FIELDS] + [fields.field("reward"), baselines]
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        filled = pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(columns, fields=list(_fields())))
        return batch.set_column(batch.schema.get_field_index("segments"), "segments", filled)

    def _record(self, group: ScoredGroup, response: ScoredResponse, pass_rate: float) -> dict[str, Any]:
        accuracy_bin = bin_of(pass_rate, self.recipe.accuracy_bins)
        rewards = action_rewards(response.outcome, response.segments)
        for place, reward in enumerate(rewards):
            if reward is not None:
                total, count = self._rewards[accuracy_bin, place]
                self._rewards[accuracy_bin, place] = (total + reward, count + 1)
        whole = ScoredSegment(kind=SegmentKind.SOLVE, start=0, end=len(response.text))
        segments = response.segments or (whole,)
        return {
            "question_id": group.question_id,
            "group_id": group.id,
            "position": response.position,
            "policy_id": group.policy_id,
            "policy_version": group.policy_version,
            "pass_rate": pass_rate,
            "accuracy_bin": accuracy_bin,
            "reward": outcome_reward(response.outcome),
            **conversation(group.question, response.text),
            "finish_reason": str(response.finish_reason),
            "segments": [_segment(*item) for item in zip(segments, rewards, strict=True)],
            "rounds": sum(segment.kind is SegmentKind.SOLVE for segment in segments),
            "prompt_token_ids": group.prompt_token_ids,
            "token_ids": response.token_ids,
            "logprobs": response.logprobs,
            "token_ends": response.token_ends,
        }

    def _baselines(self, bins: NDArray[Any], places: NDArray[Any], rewarded: NDArray[Any]) -> pa.Array:
        means = {place: total / count for place, (total, count) in self._rewards.items()}
        found = zip(bins.tolist(), places.tolist(), rewarded.tolist(), strict=True)
        return pa.array([means[at, place] if known else None for at, place, known in found], pa.float32())

    def _count(self, reason: str, count: int) -> None:
        if count:
            self.dropped[reason] += count


def bin_of(pass_rate: float, bins: int) -> int:
    """Which of so many equally wide bins of [0, 1] a pass rate is in; 1 is in the last."""
    return min(int(pass_rate * bins), bins - 1)


def goes_on_after_the_end(segments: tuple[ScoredSegment, ...]) -> bool:
    """Whether a trajectory goes on after a right attempt that it called correct."""
    return any(
        solve.kind is SegmentKind.SOLVE
        and (solve.reward or 0.0) > 0
        and verify.kind is SegmentKind.VERIFY
        and verify.claimed is ClaimedVerdict.CORRECT
        for solve, verify in pairwise(segments[:-1])
    )


def _segment(segment: ScoredSegment, reward: float | None) -> dict[str, Any]:
    return {
        "start": segment.start,
        "end": segment.end,
        "kind": str(segment.kind),
        "trained": segment.kind is not SegmentKind.OBSERVE and reward is not None,
        "reward": reward,
        "baseline": None,
    }


def _fields() -> Iterator[pa.Field]:
    value_type = _SEGMENTS.value_type
    return (value_type.field(number) for number in range(value_type.num_fields))
