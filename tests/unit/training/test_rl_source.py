"""What becomes of a batch between its lease and the checkpoint that holds it; the pool's answers are faked."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from services.training.failures import RunError
from services.training.lease import RunLease
from services.training.rl.source import BatchSource
from shared.contracts.batches import BatchAck, BatchRelease
from shared.contracts.recipe import RlRecipe
from shared.contracts.runs import RunFailure
from shared.errors import ConflictError, HeadwaterError, NotFoundError


@dataclass
class Pool:
    """Answers acknowledgements; `refused` says how, by step."""

    refused: dict[int, HeadwaterError] = field(default_factory=dict)
    acknowledged: list[int] = field(default_factory=list)
    released_from: list[int] = field(default_factory=list)

    async def acknowledge(self, _batch_id: UUID, request: BatchAck) -> None:
        """Take or refuse it."""
        if request.step in self.refused:
            raise self.refused[request.step]
        self.acknowledged.append(request.step)

    async def release(self, request: BatchRelease) -> None:
        """Note it."""
        self.released_from.append(request.from_step)


@dataclass
class Lease:
    """A lease that is held."""

    peers: Pool
    run_id: UUID = field(default_factory=uuid4)
    fence: int = 1

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run it."""
        return asyncio.run(work)


def source(pool: Pool, given_up: list[int]) -> BatchSource:
    return BatchSource(cast("RunLease", Lease(pool)), UUID(int=2), RlRecipe(), 0, given_up.append)


def test_only_what_the_checkpoint_holds_is_acknowledged() -> None:
    pool, given_up = Pool(), list[int]()
    batches = source(pool, given_up)
    batches.unacknowledged = [(uuid4(), step) for step in range(5)]
    batches.acknowledge(3)
    assert pool.acknowledged == [0, 1, 2]
    assert [step for _, step in batches.unacknowledged] == [3, 4]
    assert given_up == []


@pytest.mark.parametrize("answer", [ConflictError("batch_lost", "It went back."), NotFoundError("batch", UUID(int=3))])
def test_weights_with_a_batch_that_others_may_have_are_given_up(answer: HeadwaterError) -> None:
    pool, given_up = Pool({1: answer}), list[int]()
    batches = source(pool, given_up)
    with pytest.raises(RunError) as ended:
        batches.resume(3, [(uuid4(), step) for step in range(3)])
    assert (ended.value.failure, given_up) == (RunFailure.BATCH_LOST, [1])
    assert (pool.acknowledged, pool.released_from) == ([0], [])


def test_a_pool_that_refuses_for_another_reason_costs_no_checkpoint() -> None:
    pool, given_up = Pool({0: ConflictError("fenced", "Stop.")}), list[int]()
    with pytest.raises(ConflictError):
        source(pool, given_up).resume(1, [(uuid4(), 0)])
    assert given_up == []
