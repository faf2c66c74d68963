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
from shared.arrow.lease import PackedLease
from shared.contracts.batches import BatchAck, BatchLeaseRequest, BatchRelease
from shared.contracts.recipe import RlRecipe
from shared.contracts.runs import RunFailure
from shared.errors import ConflictError, HeadwaterError, NotFoundError


@dataclass
class Pool:
    """Answers acknowledgements; `refused` says how, by step."""

    refused: dict[int, HeadwaterError] = field(default_factory=dict)
    acknowledged: list[int] = field(default_factory=list)
    released_from: list[int] = field(default_factory=list)
    answers: list[PackedLease] = field(default_factory=list)
    asked: list[BatchLeaseRequest] = field(default_factory=list)

    async def lease_batch(self, request: BatchLeaseRequest) -> PackedLease:
        """The next answer; the last one for ever."""
        self.asked.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

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
    said: list[str] = field(default_factory=list)
    is_watched: bool = True

    def say(self, message: str) -> None:
        """Note it."""
        self.said.append(message)

    def check_pause(self) -> None:
        """Nobody wants one."""

    def work_begins(self) -> None:
        """A step is under way."""
        self.is_watched = True

    def work_pauses(self) -> None:
        """No step is under way."""
        self.is_watched = False

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run it."""
        return asyncio.run(work)


def source(pool: Pool, given_up: list[int]) -> BatchSource:
    return BatchSource(cast("RunLease", Lease(pool)), UUID(int=2), RlRecipe(), 0, given_up.append)


def test_a_run_that_waits_for_groups_says_how_many_there_are() -> None:
    batch_id = uuid4()
    lease = Lease(
        Pool(answers=[PackedLease(None, [], 3, 1), PackedLease(None, [], 9, 0), PackedLease(batch_id, [], 0, 0)])
    )
    watched: list[bool] = []
    batches = BatchSource(cast("RunLease", lease), UUID(int=2), RlRecipe(), 0, lambda _: None)
    batches.sleep = lambda _: watched.append(lease.is_watched)
    batch, _ = batches.next_batch(4)
    assert (batch.batch_id, batch.dropped_stale) == (batch_id, 1)
    assert [said[: said.index(" are")] for said in lease.said[:-1]] == [
        f"Step 5 waits for groups: {waiting} of 16 of order {UUID(int=2)}" for waiting in (3, 9)
    ]
    assert (lease.said[-1], watched, lease.is_watched) == ("", [False, False], True)


@pytest.mark.parametrize(("sync", "allowed"), [(False, 2), (True, 0)])
def test_a_run_in_sync_takes_groups_of_the_newest_version_only(sync: bool, allowed: int) -> None:
    pool = Pool(answers=[PackedLease(uuid4(), [], 0, 0)])
    recipe = RlRecipe(sync=sync, max_staleness=2)
    BatchSource(cast("RunLease", Lease(pool)), UUID(int=2), recipe, 7, lambda _: None).next_batch(0)
    assert [(request.policy_version, request.max_staleness) for request in pool.asked] == [(7, allowed)]


def test_waiting_for_groups_has_an_end() -> None:
    lease = Lease(Pool(answers=[PackedLease(None, [], 3, 0)]))
    recipe = RlRecipe(stall_timeout_s=0.001)
    batches = BatchSource(cast("RunLease", lease), UUID(int=2), recipe, 0, lambda _: None)
    with pytest.raises(RunError, match="3 wait") as ended:
        batches.next_batch(0)
    assert ended.value.failure is RunFailure.NO_PROGRESS


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
