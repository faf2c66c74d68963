"""The recipes by their names."""

from typing import Any

from services.pool.builders.builder import Builder
from services.pool.builders.distill import DistillBuilder
from services.pool.builders.offline_rl import OfflineRlBuilder
from services.pool.builders.rejection import RejectionBuilder
from services.pool.builders.s2r import S2rBuilder
from shared.contracts.recipe import BuildRecipe, TeachRecipe
from shared.contracts.snapshots import OfflineRlRecipe, RejectionRecipe, SnapshotIn, SnapshotRecipe
from shared.errors import HeadwaterError

MAX_ROUNDS = 16


def builder_of(request: SnapshotIn) -> Builder[Any]:
    """The recipe of a snapshot with its parameters and seed. Raises: HeadwaterError `bad_parameters`."""
    seed = request.seed
    match request.recipe:
        case SnapshotRecipe.DISTILL:
            return DistillBuilder(_sound_teach(request.teach or TeachRecipe()), seed)
        case SnapshotRecipe.S2R:
            return S2rBuilder(_sound_build(request.build or BuildRecipe()), seed)
        case SnapshotRecipe.REJECTION:
            return RejectionBuilder(request.rejection or RejectionRecipe(), seed)
        case SnapshotRecipe.OFFLINE_RL:
            return OfflineRlBuilder(request.offline_rl or OfflineRlRecipe(), seed)


def _sound_teach(teach: TeachRecipe) -> TeachRecipe:
    weights = teach.rounds_weights
    if min(weights) < 0 or not any(weights) or len(weights) > MAX_ROUNDS:
        message = f"teach.rounds_weights are at most {MAX_ROUNDS} numbers, none below 0 and at least one above, not {list(weights)}."
        raise HeadwaterError("bad_parameters", message, 422)
    return teach


def _sound_build(build: BuildRecipe) -> BuildRecipe:
    if not all(0 <= probability <= 1 for probability in build.keep_probability):
        message = f"build.keep_probability are numbers from 0 to 1, not {list(build.keep_probability)}."
        raise HeadwaterError("bad_parameters", message, 422)
    if any(weight < 0 for weight in build.styles.values()):
        raise HeadwaterError("bad_parameters", "build.styles are weights, and none is below 0.", 422)
    return build
