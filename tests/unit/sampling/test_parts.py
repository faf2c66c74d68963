"""Patience, window, chunks and batches."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sampling.client import TransientError
from services.sampling.service import groups
from services.sampling.service.batching import next_batch
from services.sampling.service.patience import Patience
from services.sampling.service.window import Window
from tests.unit.sampling.fakes import FakePool


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


async def exhaust(patience: Patience, failure: TransientError) -> None:
    async def wait_for_ever() -> None:
        while True:
            await patience.wait(failure)

    with pytest.raises(TransientError):
        await wait_for_ever()


async def test_patience_ends_and_begins_anew_after_a_success():
    clock = Clock()
    patience = Patience(100, clock.sleep, lambda: clock.now)
    await exhaust(patience, TransientError("pool", "down"))
    assert clock.now == pytest.approx(100)
    assert clock.pauses[0] < 0.5
    assert max(clock.pauses) <= 12.5
    patience.succeeded()
    await exhaust(patience, TransientError("pool", "down"))
    assert clock.now == pytest.approx(200)


async def test_retry_after_is_honoured():
    clock = Clock()
    patience = Patience(100, clock.sleep, lambda: clock.now)
    await patience.wait(TransientError("generation", "full", retry_after_s=7))
    assert clock.pauses == [7]
    with pytest.raises(TransientError):
        await patience.wait(TransientError("generation", "full", retry_after_s=1000))


@given(
    st.lists(st.sampled_from([1.0, 40.0, 100.0, None])), st.integers(1, 512), st.integers(1, 256), st.integers(0, 600)
)
def test_window_stays_in_bounds(elapsed: list[float | None], maximum: int, k: int, under_way: int):
    window = Window(maximum)
    window.claimed(k, 256)
    for seconds in elapsed:
        before = window.size
        if seconds is None:
            window.overloaded()
        else:
            window.sampled(k, seconds, 120)
            assert (window.size - before) * (60 - seconds) >= 0
        assert 1 <= window.size <= maximum
        claimed = window.questions(under_way)
        assert claimed == 0 or under_way + claimed * k <= window.size or (under_way, claimed) == (0, 1)
        assert window.questions(0) >= 1


@given(st.integers(0, 70), st.integers(1, 3))
def test_chunks_keep_every_assignment_with_its_like(count: int, kinds: int):
    assignments = [
        item.model_copy(update={"k": 1 + number % kinds}) for number, item in enumerate(FakePool(count).waiting)
    ]
    chunks = groups.chunks(assignments)
    assert {item.id for chunk in chunks for item in chunk} == {item.id for item in assignments}
    assert sum(map(len, chunks)) == count
    for chunk in chunks:
        assert 1 <= len(chunk) <= groups.MAX_PROMPTS
        assert len({item.k for item in chunk}) == 1
        assert groups.sample_request(chunk).n == chunk[0].k


async def test_batches_end_by_weight_or_by_time():
    queue: asyncio.Queue[int] = asyncio.Queue()
    for item in (3, 3, 3, 1):
        queue.put_nowait(item)
    assert await next_batch(queue, int, 5, 60) == [3, 3]
    assert await next_batch(queue, int, 5, 0.01) == [3, 1]
