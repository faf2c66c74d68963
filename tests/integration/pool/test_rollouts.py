"""Standing orders: which questions they take, how often, and that the same state and seed give the same turns."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import OrderRow
from services.pool.repository import orders, rollouts
from shared.contracts.weights import QuestionWeights
from shared.db import Database
from tests.integration.pool.client import PoolClient

pytestmark = pytest.mark.integration
CAMPAIGN = UUID(int=1)
LEVELS = (1, 2, 3, 4, 5, None)


class World:
    """A campaign with questions by level, and one standing order; everything is rolled back in the end."""

    def __init__(self, session: Any) -> None:
        self.session = session

    async def execute(self, statement: str, **values: Any) -> None:
        await self.session.execute(text(statement), values)

    async def add(self, numbers: Sequence[int], level: int | None = None) -> None:
        rows = [{"id": uuid5(CAMPAIGN, f"{number}"), "level": level, "campaign": CAMPAIGN} for number in numbers]
        if not rows:
            return
        await self.session.execute(
            text(
                "INSERT INTO pool.questions (id, campaign_id, text_hash, text, answer, kind, split, domain, source, state, level) "
                "VALUES (:id, :campaign, '', 'q', 'a', 'math', 'train', 'text', '', 'hard', :level)"
            ),
            rows,
        )

    async def order(self, weights: Mapping[str, Any], seed: int = 0) -> OrderRow:
        order = OrderRow(
            id=uuid5(CAMPAIGN, "order"), campaign_id=CAMPAIGN, key="rl", request_hash="", purpose="rollout",
            policy_id=UUID(int=2), policy_version=1, k=1, sampling={}, watermark_groups=1, max_attempts=1, deadline_s=1,
            selection={"states": ["hard"], "seed": seed}, weights=dict(weights), priority=0, turns=0.0,
        )  # fmt: skip
        self.session.add(order)
        await self.session.flush()
        return order

    async def take(self, order: OrderRow, groups: int) -> list[UUID]:
        """The next questions, in turn."""
        made = 0
        while made < groups:
            taken, useful = await rollouts.take(self.session, order, groups - made)
            made += useful
            if not taken and not await rollouts.draw(self.session, order):
                break
        found = await self.session.execute(
            text("DELETE FROM pool.assignments WHERE order_id = :id RETURNING sequence, question_id"), {"id": order.id}
        )
        return [row.question_id for row in sorted(found, key=lambda row: row.sequence)]


@asynccontextmanager
async def world(database_url: str):
    database = Database(database_url)
    async with database.engine.connect() as connection:
        transaction = await connection.begin()
        async with AsyncSession(connection, expire_on_commit=False) as session:
            one = World(session)
            await one.execute("INSERT INTO pool.campaigns (id, name, router) VALUES (:id, 'c', '{}')", id=CAMPAIGN)
            yield one
        await transaction.rollback()
    await database.close()


def weighted(*levels: float, unmeasured: float = 1.0) -> dict[str, Any]:
    return {"by": "level", "levels": levels, "unmeasured": unmeasured}


async def test_equal_weights_take_every_question_once_before_any_again(database_url: str):
    async with world(database_url) as one:
        await one.add(range(20))
        order = await one.order({})
        rounds = [await one.take(order, 20) for _ in range(4)]
        assert all(len(set(taken)) == 20 for taken in rounds)
        assert len({tuple(taken) for taken in rounds}) == 4


@given(
    counts=st.lists(st.integers(0, 3), min_size=6, max_size=6),
    weights=st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 7.0]), min_size=5, max_size=5).filter(any),
    unmeasured=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 3),
)
@example(counts=[1, 0, 0, 0, 0, 0], weights=[0.0, 0.0, 0.0, 0.0, 1.0], unmeasured=1.0, seed=0)
@settings(
    max_examples=8,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_question_comes_as_often_as_its_weight_says(
    database_url: str, counts: list[int], weights: list[float], unmeasured: float, seed: int
):
    asyncio.run(shares(database_url, counts, weights, unmeasured, seed))


async def shares(database_url: str, counts: list[int], weights: list[float], unmeasured: float, seed: int) -> None:
    relative = dict(zip(LEVELS, [*(weight / max(weights) for weight in weights), unmeasured], strict=True))
    weight_of: dict[UUID, float] = {}
    async with world(database_url) as one:
        for at, (level, count) in enumerate(zip(LEVELS, counts, strict=True)):
            numbers = range(100 * at, 100 * at + count)
            await one.add(numbers, level)
            weight_of |= {uuid5(CAMPAIGN, f"{number}"): relative[level] for number in numbers}
        order = await one.order(weighted(*weights, unmeasured=unmeasured), seed)
        total = sum(weight_of.values())
        taken = await one.take(order, 6 * len(weight_of))
        if not total:
            assert taken == []
            return
        assert len(taken) == 6 * len(weight_of)
        times = Counter(taken)
        # A turn every 1/weight, each moved by less than that, and half a turn drawn at once: times/weight is the same for all, but for
        # one and a half turns of each.
        reached = [(times[question] / weight, 1.5 / weight) for question, weight in weight_of.items() if weight]
        assert max(at - slack for at, slack in reached) <= min(at + slack for at, slack in reached), (reached, times)
        assert {question for question, weight in weight_of.items() if not weight}.isdisjoint(times)


async def test_the_same_state_and_seed_give_the_same_turns(database_url: str):
    async def turns(seed: int) -> list[UUID]:
        async with world(database_url) as one:
            await one.add(range(10), 1)
            await one.add(range(10, 20), 5)
            order = await one.order(weighted(1, 0, 0, 0, 3), seed)
            taken: list[UUID] = await one.take(order, 60)
            return taken

    first = await turns(1)
    assert await turns(1) == first
    assert await turns(2) != first


async def test_learnability_is_of_the_newest_rate_of_a_probe_or_a_rollout(database_url: str):
    async with world(database_url) as one:
        order = await one.order(
            QuestionWeights.model_validate({"by": "learnability", "floor": 0}).model_dump(mode="json")
        )
        teach = uuid4()
        await one.execute(
            "INSERT INTO pool.orders (id, campaign_id, key, request_hash, purpose, policy_id, policy_version, k, sampling, "
            "selection, max_attempts, deadline_s) VALUES (:id, :campaign, 't', '', 'teach', :id, 9, 1, '{}', '{}', 1, 1)",
            id=teach,
            campaign=CAMPAIGN,
        )
        # By question: (policy version, mean) of each measurement; what decides comes last.
        measured = {0: [(1, 1.0), (2, 2 / 3)], 1: [(1, 2 / 3), (2, 0.0)], 2: [(2, 1 / 3)], 3: [(1, 1.0)], 4: []}
        await one.add(list(measured))
        for number, rates in measured.items():
            for version, mean in rates:
                await one.execute(
                    "INSERT INTO pool.pass_rates (question_id, policy_id, order_id, policy_version, n, correct, mean, variance, "
                    "level) VALUES (:question, :policy, :order, :version, 6, 1, :mean, :variance, 1)",
                    question=uuid5(CAMPAIGN, f"{number}"), policy=uuid4(), order=order.id, version=version, mean=mean,
                    variance=mean * (1 - mean),
                )  # fmt: skip
        await one.execute(
            "INSERT INTO pool.pass_rates (question_id, policy_id, order_id, policy_version, n, correct, mean, variance, level) "
            "VALUES (:question, :teach, :teach, 9, 1, 1, 1, 0, 1)",
            question=uuid5(CAMPAIGN, "4"),
            teach=teach,
        )
        times = Counter(await one.take(order, 100))
    by_number = [times[uuid5(CAMPAIGN, f"{number}")] for number in measured]
    # μ²(1 − μ), relative to the largest: 1 at 2/3, 1/2 at 1/3, nothing at 0 and 1; unmeasured, whatever a teacher can: 1.
    assert by_number == pytest.approx([40, 0, 20, 0, 40], abs=3)


async def test_a_question_that_comes_late_joins_where_the_order_is(database_url: str):
    async with world(database_url) as one:
        await one.add(range(10))
        order = await one.order({})
        await one.take(order, 50)
        await one.add([50])
        times = Counter(await one.take(order, 55))
        assert 5 <= times[uuid5(CAMPAIGN, "50")] <= 7
        assert max(times.values()) - min(times.values()) <= 2


async def test_a_weight_that_changes_counts_from_then_on(database_url: str):
    async with world(database_url) as one:
        await one.add(range(8), 1)
        await one.add([50], 5)
        order = await one.order(weighted(1, 0, 0, 0, 0.05))
        await one.take(order, 8 * 25)
        await one.execute("UPDATE pool.questions SET level = 1")
        times = Counter(await one.take(order, 45))
        assert times[uuid5(CAMPAIGN, "50")] == pytest.approx(5, abs=2)


async def test_what_is_queued_and_no_longer_selected_is_left_out(database_url: str):
    async with world(database_url) as one:
        await one.add(range(20))
        order = await one.order({})
        await rollouts.draw(one.session, order)
        await one.execute("UPDATE pool.questions SET state = 'retracted' WHERE id <> :id", id=uuid5(CAMPAIGN, "3"))
        assert await one.take(order, 4) == [uuid5(CAMPAIGN, "3")] * 4


async def test_weights_are_for_standing_orders_and_are_checked(pool: PoolClient):
    await pool.submit(2)
    refused = await pool.order(status=422, weights={"by": "learnability"})
    assert refused["error"]["code"] == "weights_are_standing"
    for wrong in (
        {"by": "level"},
        {"levels": [1, 1, 1, 1, 1]},
        {"by": "level", "levels": [0, 0, 0, 0, 0]},
        {"floor": 2},
    ):
        refused = await pool.order("rollout", 422, watermark_groups=1, weights=wrong)
        assert "weights" in refused["error"]["details"][0]["field"]
    order = await pool.order("rollout", watermark_groups=1, weights={"by": "learnability"})
    assert order["weights"] == {"by": "learnability", "levels": None, "floor": 0.05, "unmeasured": 1.0}
    again = await pool.order("rollout", 200, watermark_groups=1, weights={"by": "learnability", "floor": 0.05})
    assert again["id"] == order["id"]


async def test_closing_empties_the_queue(pool: PoolClient):
    await pool.submit(30)
    order = await pool.order("rollout", watermark_groups=2)
    assert len(await pool.claim()) == 2
    assert (await pool.execute("SELECT count(*) FROM pool.rollout_queue"))[0][0] > 0
    await pool.ask("POST", f"/v1/orders/{order['id']}/close")
    assert (await pool.execute("SELECT count(*) FROM pool.rollout_queue"))[0][0] == 0
    database = Database(pool.database_url)
    async with database.transaction() as session:
        assert await rollouts.missing(session) == {}
        assert await orders.get(session, UUID(order["id"])) is not None
    await database.close()
