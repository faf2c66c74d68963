"""Stages that are one snapshot: distill (out of the teacher's answers), build (out of the policy's own)."""

from dataclasses import dataclass
from typing import Any

from services.cascade.models import StageRow
from services.cascade.service.progress import show_snapshot
from services.cascade.service.stage import Context, WayOut, failed
from shared.contracts.campaigns import StageName
from shared.contracts.snapshots import SnapshotIn, SnapshotRecipe, SnapshotStatus


@dataclass(frozen=True)
class Building:
    """One snapshot by `recipe` from the groups of `order_of`, and, where there is one, of `more_of`, with rows of `replay_of` mixed in."""

    name: StageName
    recipe: SnapshotRecipe
    order_of: StageName
    more_of: StageName | None = None
    replay_of: StageName | None = None

    async def prepare(self, context: Context) -> dict[str, Any]:
        """The snapshot's source and parameters."""
        order_id = context.stages[self.order_of].order_id
        assert order_id is not None, self.order_of
        more = context.stages[self.more_of].order_id if self.more_of else None
        distill = self.recipe is SnapshotRecipe.DISTILL
        snapshot = SnapshotIn(
            campaign_id=context.campaign_id,
            key=context.key(self.name),
            recipe=self.recipe,
            order_id=order_id,
            more_order_ids=(more,) if more else (),
            seed=context.recipe.seed,
            teach=context.recipe.teach if distill else None,
            build=None if distill else context.recipe.build,
            replay_snapshot_id=context.stages[self.replay_of].snapshot_id if self.replay_of else None,
        )
        return snapshot.model_dump(mode="json")

    async def step(self, context: Context, stage: StageRow) -> bool:
        """Order once, then watch until it is built."""
        pool = context.peers.pool
        if stage.snapshot_id is None:
            snapshot = await pool.create_snapshot(SnapshotIn.model_validate(stage.request))
            stage.snapshot_id = snapshot.id
        else:
            snapshot = await pool.snapshot(stage.snapshot_id)
        show_snapshot(stage, snapshot)
        if snapshot.status is SnapshotStatus.BUILDING:
            return False
        if snapshot.status is SnapshotStatus.FAILED:
            raise failed(f"Snapshot '{snapshot.key}' could not be built: {snapshot.error or 'no reason was given'}")
        if not snapshot.rows:
            raise failed(
                f"Snapshot '{snapshot.key}' has no rows to train on ({stage.detail or 'its order has no scored answer'}), "
                "and the same answers would give none again",
                WayOut.ANOTHER_CAMPAIGN,
            )
        return True
