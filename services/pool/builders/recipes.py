"""The recipes by their names."""

from typing import Any

from services.pool.builders.builder import Builder
from services.pool.builders.distill import DistillBuilder
from services.pool.builders.offline_rl import OfflineRlBuilder
from services.pool.builders.rejection import RejectionBuilder
from services.pool.builders.s2r import S2rBuilder
from shared.contracts.recipe import BuildRecipe, TeachRecipe
from shared.contracts.snapshots import OfflineRlRecipe, RejectionRecipe, SnapshotIn, SnapshotRecipe


def builder_of(request: SnapshotIn) -> Builder[Any]:
    """The recipe of a snapshot with its parameters and seed."""
    seed = request.seed
    match request.recipe:
        case SnapshotRecipe.DISTILL:
            return DistillBuilder(request.teach or TeachRecipe(), seed)
        case SnapshotRecipe.S2R:
            return S2rBuilder(request.build or BuildRecipe(), seed)
        case SnapshotRecipe.REJECTION:
            return RejectionBuilder(request.rejection or RejectionRecipe(), seed)
        case SnapshotRecipe.OFFLINE_RL:
            return OfflineRlBuilder(request.offline_rl or OfflineRlRecipe(), seed)
