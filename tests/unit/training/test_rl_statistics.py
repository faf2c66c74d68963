"""What a step says about itself: against a loop, whatever the micro-batches."""

import math
from statistics import fmean, pstdev

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.training.rl.losses import ClipRange, clipped_surrogate
from services.training.rl.ratios import log_ratios
from services.training.rl.statistics import LogProbs, Statistics, statistics, step_metrics
from tests.unit.training.ragged import Ragged, ragged

CLIP = ClipRange(low=0.2, high=0.2, dual=3.0)


def statistics_of(batch: Ragged, is_fresh: list[bool], *, reference: bool = True) -> Statistics:
    ratios = log_ratios(batch.logprobs, batch.old, batch.actions, batch.widest, is_length_normalised=False)
    surrogate = clipped_surrogate(ratios, batch.advantages, batch.weights, CLIP)
    logprobs = LogProbs(batch.logprobs, batch.old, batch.reference if reference else None)
    return statistics(surrogate, batch.weights, logprobs, batch.actions, torch.tensor(is_fresh))


@given(ragged(), st.data())
def test_figures_are_those_of_a_loop_over_all_micro_batches(batch: Ragged, data: st.DataObject) -> None:
    rows = range(len(batch.actions))
    is_fresh = [data.draw(st.booleans()) for _ in rows]
    parts = [statistics_of(batch.rows([row]), [is_fresh[row]]) for row in rows]
    found = step_metrics(parts)
    actions = [(row, a) for row in rows for a in range(batch.widest) if batch.weights[row, a] > 0]
    drifts = [
        sum(float(batch.logprobs[row, c] - batch.old[row, c]) for c in batch.tokens_of(row, a)) for row, a in actions
    ]
    ratios = [math.exp(drift) for drift in drifts]
    bad = [float(batch.advantages[place]) < 0 for place in actions]
    expected = {
        "ratio_mean": fmean(ratios),
        "ratio_std": pstdev(ratios),
        "ratio_max": max(ratios),
        "dual_clip_fraction": fmean(is_bad and ratio > 3 for is_bad, ratio in zip(bad, ratios, strict=True)),
        "clip_fraction": fmean(
            ratio < 0.8 if is_bad else ratio > 1.2 for is_bad, ratio in zip(bad, ratios, strict=True)
        ),
    }
    tokens = [(row, c) for row in rows for c, action in enumerate(batch.actions[row].tolist()) if action >= 0]
    if tokens:
        away = [float(batch.reference[token] - batch.logprobs[token]) for token in tokens]
        expected["negative_logprob_mean"] = -fmean(float(batch.logprobs[token]) for token in tokens)
        expected["kl"] = fmean(math.exp(d) - d - 1 for d in away)
    fresh = [float(batch.logprobs[token] - batch.old[token]) for token in tokens if is_fresh[token[0]]]
    if fresh:
        expected["engine_logprob_gap"] = fmean(map(abs, fresh))
        expected["engine_kl"] = fmean(math.exp(d) - d - 1 for d in fresh)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert step_metrics([statistics_of(batch, is_fresh)]) == pytest.approx(found, rel=1e-6, abs=1e-9)


@given(ragged())
def test_an_engine_that_agrees_has_no_gap(batch: Ragged) -> None:
    same = Ragged(*(*[batch.logprobs] * 3, batch.actions, batch.advantages, batch.weights))
    found = step_metrics([statistics_of(same, [True] * len(batch.actions))])
    assert found["ratio_mean"] == found["ratio_max"] == 1.0
    assert found["ratio_std"] == found["clip_fraction"] == found["dual_clip_fraction"] == 0.0
    assert [found.get(name, 0.0) for name in ("engine_logprob_gap", "engine_kl", "kl")] == [0.0, 0.0, 0.0]


@given(ragged())
def test_without_a_reference_or_anything_trained_there_is_no_figure(batch: Ragged) -> None:
    assert "kl" not in step_metrics([statistics_of(batch, [False] * len(batch.actions), reference=False)])
    nothing = Ragged(
        batch.logprobs,
        batch.old,
        batch.reference,
        torch.full_like(batch.actions, -1),
        batch.advantages,
        batch.weights * 0,
    )
    assert step_metrics([statistics_of(nothing, [True] * len(batch.actions))]) == {}
    assert step_metrics([]) == {}
