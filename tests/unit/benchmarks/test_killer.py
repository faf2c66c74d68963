"""Who is killed when is decided by the seed."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.killer import ENGINE, OTHERS, moments


@given(st.integers(1, 60), st.integers(0, 5), st.integers(2, 100), st.integers(0, 99))
def test_kills_are_as_many_as_asked_for_and_fall_on_all_alike(kills: int, engine: int, steps: int, seed: int) -> None:
    engine = min(engine, kills)
    plan = moments(kills, engine, steps, seed)
    victims = Counter(moment.victim for moment in plan)
    assert (len(plan), victims[ENGINE]) == (kills, engine)
    counts = [victims[name] for name in OTHERS]
    assert max(counts) - min(counts) <= 1
    assert [moment.step for moment in plan] == sorted(moment.step for moment in plan)
    assert all(0 <= moment.step < steps - 1 or steps == 2 for moment in plan)
    assert plan == moments(kills, engine, steps, seed)
