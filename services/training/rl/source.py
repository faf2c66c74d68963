"""Where RL's batches come from: leased from the pool step by step, acknowledged when a durable checkpoint has them.

Invariant: what a checkpoint that is kept was trained on is acknowledged, or still leased to this run. A batch that went
back to the pool (its lease was over, and another run asked) may be trained on by others, so the checkpoints that hold it
are given up, and the attempt ends with `batch_lost`: the next one goes on from the checkpoint before.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

from services.training.failures import RunError
from services.training.lease import RunLease
from shared.arrow.lease import PackedLease
from shared.contracts.batches import BatchAck, BatchLeaseRequest, BatchRelease
from shared.contracts.recipe import RlRecipe
from shared.contracts.runs import RunFailure
from shared.errors import HeadwaterError

POLL_S = 0.5
BATCH_LEASE_S = 3600.0


@dataclass
class BatchSource:
    """Leases one batch a step. `unacknowledged`: (batch, step) pairs that no acknowledged checkpoint has yet.

    `give_up_step`: removes the checkpoints that hold the batch of a step.
    """

    lease: RunLease
    order_id: UUID
    recipe: RlRecipe
    policy_version: int
    give_up_step: Callable[[int], None]
    unacknowledged: list[tuple[UUID, int]] = field(default_factory=list)
    sleep: Callable[[float], None] = time.sleep

    def next_batch(self, step: int) -> tuple[PackedLease, float]:
        """The batch of `step` and the seconds waited for it. Raises: RunError `no_progress` after stall_timeout_s;
        RunPausedError.
        """
        request = BatchLeaseRequest(
            order_id=self.order_id,
            run_id=self.lease.run_id,
            step=step,
            fence=self.lease.fence,
            groups=self.recipe.groups_per_step,
            policy_version=self.policy_version,
            max_staleness=0 if self.recipe.sync else self.recipe.max_staleness,
            lease_s=BATCH_LEASE_S,
        )
        self.lease.work_pauses()
        asked_at, since = time.monotonic(), datetime.now(UTC)
        dropped_stale = 0
        while True:
            self.lease.check_pause()
            batch = self.lease.wait(self.lease.peers.lease_batch(request))
            dropped_stale += batch.dropped_stale
            waited_s = time.monotonic() - asked_at
            if batch.batch_id is not None:
                self.unacknowledged.append((batch.batch_id, step))
                self.lease.work_begins()
                self.lease.say("")
                return replace(batch, dropped_stale=dropped_stale), waited_s
            if waited_s > self.recipe.stall_timeout_s:
                raise RunError(
                    RunFailure.NO_PROGRESS,
                    f"Step {step + 1} waited {waited_s:.0f} s for {request.groups} groups of order {self.order_id}; "
                    f"{batch.waiting} wait, {dropped_stale} were too old. Is a sampling worker running, and are there "
                    "questions in the states that the recipe names?",
                )
            self.lease.say(
                f"Step {step + 1} waits for groups: {batch.waiting} of {request.groups} of order {self.order_id} are there, "
                f"since {since:%Y-%m-%d %H:%M:%S} UTC."
            )
            self.sleep(min(POLL_S, self.recipe.stall_timeout_s / 10))

    def acknowledge(self, checkpoint_step: int) -> None:
        """Acknowledge the batches of the steps that are in the durable checkpoint of `checkpoint_step`.

        Raises: RunError `batch_lost` when one of them is not this run's any more.
        """
        for batch_id, step in [item for item in self.unacknowledged if item[1] < checkpoint_step]:
            acknowledgement = BatchAck(run_id=self.lease.run_id, step=step, fence=self.lease.fence)
            try:
                self.lease.wait(self.lease.peers.acknowledge(batch_id, acknowledgement))
            except HeadwaterError as error:
                if error.code not in ("batch_lost", "not_found"):
                    raise
                self.give_up_step(step)
                raise RunError(
                    RunFailure.BATCH_LOST,
                    f"The groups of step {step + 1} went back to the pool, and others may train on them: this run was "
                    f"silent for more than {BATCH_LEASE_S:.0f} s, or the pool was restored from an older backup. The "
                    "checkpoints that hold them are removed; the run goes on from the one before.",
                ) from error
            self.unacknowledged.remove((batch_id, step))

    def resume(self, checkpoint_step: int, unacknowledged: list[tuple[UUID, int]]) -> None:
        """After a crash: acknowledge what the checkpoint has, give back what came after it."""
        self.unacknowledged = unacknowledged
        self.acknowledge(checkpoint_step)
        release = BatchRelease(run_id=self.lease.run_id, fence=self.lease.fence, from_step=checkpoint_step)
        self.lease.wait(self.lease.peers.release(release))
