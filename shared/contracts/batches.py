"""Batches: whole groups leased by the pool to one step of one training run."""

from uuid import UUID

from pydantic import Field

from shared.contracts.base import Contract
from shared.contracts.orders import Group


class BatchLeaseRequest(Contract):
    """Lease `groups` whole groups of a standing order for (run, step). Idempotent: the same (run, step) gets the same batch,
    unless the run has a newer policy by now for which a group of it is too old.

    `policy_version`: the trainer's newest published version; a group older than `max_staleness` versions is dropped
    with its reason and never handed out. `fence`: the run's fencing token; a smaller one than seen before is refused.
    """

    order_id: UUID
    run_id: UUID
    step: int = Field(ge=0)
    fence: int = Field(ge=0)
    groups: int = Field(ge=1, le=4096)
    policy_version: int = Field(ge=0)
    max_staleness: int = Field(ge=0)
    lease_s: float = Field(default=300.0, gt=0, le=3600)


class BatchLease(Contract):
    """A leased batch, or `batch_id` None when too few groups wait (`waiting` says how many do)."""

    batch_id: UUID | None
    groups: tuple[Group, ...] = ()
    waiting: int
    dropped_stale: int = 0


class BatchAck(Contract):
    """POST /v1/batches/{id}/ack: the step that used the batch is in a durable checkpoint."""

    run_id: UUID
    step: int = Field(ge=0)
    fence: int = Field(ge=0)


class BatchRelease(Contract):
    """POST /v1/batches/release: a resumed run gives back what it leased for `from_step` and later steps."""

    run_id: UUID
    fence: int = Field(ge=0)
    from_step: int = Field(ge=0)
