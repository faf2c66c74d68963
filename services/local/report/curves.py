"""Which logged points of a run belong together, and how a curve is made readable.

What each point means is said in docs/recipe.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

# A curve of more points than this is shown as a moving mean over faint points.
RAW_POINTS = 60
_WINDOWS_A_CURVE = 30
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Panel:
    """Curves that share an axis: `labels` by the names of the points. `scale`: 100 for shares, which are shown in per cent."""

    title: str
    labels: dict[str, str]
    scale: float = 1.0
    is_logarithmic: bool = False


_LOSS = Panel("loss", {"loss": "loss"})
_KL = Panel("KL to the start policy, nats", {"kl": "KL"})
_SPEED = Panel("tokens/s", {"tokens_per_s": "tokens/s"})
PANELS = {
    "sft": (_LOSS, _KL, Panel("next tokens that are right, %", {"mean_token_accuracy": "tokens"}, scale=100), _SPEED),
    "rl": (
        Panel("reward", {"reward_mean": "mean"}),
        Panel("accuracy, %", {"accuracy": "answers", "verification_accuracy": "verifications"}, scale=100),
        Panel("responses, %", {"unparsed_rate": "unparsed", "truncated_rate": "cut off"}, scale=100),
        Panel("rounds a response", {"rounds_mean": "rounds"}),
        _LOSS,
        Panel("standard deviation", {"advantage_std": "advantages", "reward_std": "rewards"}),
        _KL,
        Panel("−log-probability (entropy estimate), nats", {"negative_logprob_mean": "nats"}),
        Panel("ratio", {"ratio_mean": "mean", "ratio_max": "largest"}, is_logarithmic=True),
        Panel("standard deviation of the ratio", {"ratio_std": "ratio"}),
        Panel("clipped actions, %", {"clip_fraction": "clip", "dual_clip_fraction": "dual clip"}, scale=100),
        Panel("groups that taught nothing, %", {"zero_variance_rate": "groups"}, scale=100),
        Panel("staleness, versions", {"staleness_mean": "mean", "staleness_max": "largest"}),
        Panel("groups dropped as too old", {"dropped_stale": "groups"}),
        Panel("wait for the batch, s", {"wait_s": "seconds"}),
        _SPEED,
    ),
}
BOUNDED = "staleness_max"


def series(run: dict[str, Any], name: str, panel: Panel) -> Values:
    """The values of a point in the panel's unit, NaN where a step has none."""
    import numpy as np

    return np.array([np.nan if value is None else value for value in run["values"][name]], dtype=float) * panel.scale


def panels(run: dict[str, Any]) -> list[tuple[Panel, dict[str, Values]]]:
    """The panels for which something was logged, each with its series by name."""
    found = []
    for panel in PANELS[run["method"]]:
        curves = {name: series(run, name, panel) for name in panel.labels if name in run["values"]}
        if curves:
            found.append((panel, curves))
    return found


def window(points: int) -> int:
    """How many points the moving mean of a curve is taken over; 1: it is shown as it is."""
    return points // _WINDOWS_A_CURVE if points > RAW_POINTS else 1


def smoothed(values: Values) -> Values:
    """The centred moving mean over a window of points, NaN where none of them is known."""
    import numpy as np

    known, weights = ~np.isnan(values), np.ones(window(len(values)))
    counts = np.convolve(known.astype(float), weights, mode="same")
    sums = np.convolve(np.where(known, values, 0.0), weights, mode="same")
    means: Values = np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)
    return means


def bars(values: Values, width: int) -> str:
    """A curve as at most `width` bars between its least and its largest mean; a gap where nothing is known."""
    import numpy as np

    pieces = np.array_split(values, min(width, len(values)))
    means = [float(np.nanmean(piece)) if not np.isnan(piece).all() else None for piece in pieces]
    known = [mean for mean in means if mean is not None]
    least, span = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)
    heights = [None if mean is None else (mean - least) / span if span else 0.0 for mean in means]
    return "".join(" " if height is None else _BARS[round(height * (len(_BARS) - 1))] for height in heights)
