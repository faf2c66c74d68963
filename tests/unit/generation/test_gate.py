"""The gate, driven by random arrivals: one set of weights inside at a time, and everybody gets in."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.generation.service.gate import ResidencyGate, SwitchFailedError


class Engine:
    """Holds one key; `inside` are the keys of the requests that are running."""

    def __init__(self, refuses: str = "") -> None:
        self.gate = ResidencyGate(self.switch)
        self.refuses = refuses
        self.resident: str | None = None
        self.inside: list[str] = []
        self.switches = 0

    async def switch(self, key: str) -> None:
        assert not self.inside, "nobody runs while the weights are replaced"
        assert key in self.gate.wanted
        before, self.resident = self.resident, "half-replaced"
        self.switches += 1
        await asyncio.sleep(0)
        if key == self.refuses:
            self.resident = before
            raise SwitchFailedError(ValueError(key), before)
        self.resident = key

    async def request(self, key: str, delay: int, length: int) -> str:
        for _ in range(delay):
            await asyncio.sleep(0)
        async with self.gate.enter(key):
            self.inside.append(key)
            try:
                for _ in range(length):
                    assert self.resident == key in self.gate.wanted
                    assert set(self.inside) == {key}
                    await asyncio.sleep(0)
            finally:
                self.inside.remove(key)
        return key


arrivals = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=25)


@given(arrivals)
@settings(max_examples=200, deadline=None)
def test_everyone_runs_on_their_own_weights(requests: list[tuple[str, int, int]]) -> None:
    async def run() -> list[str]:
        engine = Engine()
        async with asyncio.timeout(5):
            return await asyncio.gather(*(engine.request(*request) for request in requests))

    assert asyncio.run(run()) == [key for key, _, _ in requests]


@given(arrivals, st.lists(st.integers(0, 24), max_size=10), st.integers(0, 15))
@settings(max_examples=200, deadline=None)
def test_cancelled_and_refused_requests_leave_the_gate_usable(
    requests: list[tuple[str, int, int]], cancelled: list[int], after: int
) -> None:
    async def run() -> None:
        engine = Engine(refuses="c")
        async with asyncio.timeout(5):
            tasks = [asyncio.create_task(engine.request(*request)) for request in requests]
            for _ in range(after):
                await asyncio.sleep(0)
            for index in cancelled:
                tasks[index % len(tasks)].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for (key, _, _), result in zip(requests, results, strict=True):
                assert isinstance(result, asyncio.CancelledError) or (
                    isinstance(result, ValueError) if key == "c" else result == key
                )
            assert engine.gate.inside == 0
            assert await engine.request("a", 0, 1) == "a"

    asyncio.run(run())


async def test_competing_policies_are_switched_in_batches() -> None:
    engine = Engine()
    await asyncio.gather(*(engine.request("ab"[index % 2], 0, 3) for index in range(40)))
    assert engine.switches == 2


async def test_newcomers_queue_behind_a_waiting_switch() -> None:
    engine = Engine()
    order: list[str] = []

    async def request(key: str) -> None:
        async with engine.gate.enter(key):
            order.append(key)
            for _ in range(5):
                await asyncio.sleep(0)

    first = asyncio.create_task(request("a"))
    while not order:
        await asyncio.sleep(0)
    await asyncio.gather(first, request("b"), request("a"))
    assert order == ["a", "b", "a"]


async def test_an_unexpected_failure_reaches_the_requests_and_makes_the_engine_unknown() -> None:
    async def fails(_: str) -> None:
        raise OSError("gone")

    gate = ResidencyGate(fails)
    with pytest.raises(OSError, match="gone"):
        async with gate.enter("a"):
            pass
    assert (gate.resident, gate.inside) == (None, 0)
