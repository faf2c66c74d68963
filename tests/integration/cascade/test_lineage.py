"""Lineage across the services: a real pool, with runs and policies of the world."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio

from services.cascade.client import PoolClient as PoolPeer
from services.cascade.main import create_app
from shared.contracts.policies import PolicyIn, PolicyKind
from shared.contracts.recipe import RlRecipe, SftRecipe
from shared.contracts.runs import Run, RunIn, RunMethod, RunState
from shared.settings import Settings
from tests.integration.cascade.world import NOW, World
from tests.integration.pool.building import built
from tests.integration.pool.client import PoolClient, RecordedHints, serving
from tests.integration.pool.test_batches import acknowledge, lease, standing

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def pool(database_url: str, tmp_path: Path) -> AsyncIterator[PoolClient]:
    """A running pool with a registered campaign."""
    hints = RecordedHints()
    async with serving(Settings(database_url=database_url, artifacts_url=str(tmp_path)), hints) as http:
        client = PoolClient(http, hints, database_url)
        await client.register()
        yield client


@pytest_asyncio.fixture
async def cascade(database_url: str, pool: PoolClient, world: World) -> AsyncIterator[httpx.AsyncClient]:
    """The cascade's API in front of the real pool."""
    app = create_app(Settings(database_url=database_url))
    async with app.router.lifespan_context(app):
        app.state.peers = replace(world.peers, pool=PoolPeer(pool.http))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://cascade") as client:
            yield client


async def ask(http: httpx.AsyncClient, method: str, path: str, status: int = 200, **request: Any):
    response = await http.request(method, path, **request)
    assert response.status_code == status, response.text
    return response.json()


class Trained:
    """A campaign that was trained: SFT on a snapshot, then RL with two versions, and a policy trained from the last."""

    def __init__(self, pool: PoolClient, world: World) -> None:
        self.pool = pool
        self.world = world
        self.campaign = UUID(pool.campaign)
        self.rl_run = str(uuid4())

    def run(self, key: str, run_id: str | None = None, **fields: Any) -> Run:
        method = RunMethod.SFT if "snapshot_id" in fields else RunMethod.RL
        recipe: Any = {"sft": SftRecipe()} if method is RunMethod.SFT else {"rl": RlRecipe()}
        wanted = RunIn(
            campaign_id=self.campaign,
            key=key,
            method=method,
            start_policy_id=uuid4(),
            publish_name=key,
            first_version=1,
            **recipe,
            **fields,
        )
        run = Run(
            **dict(wanted),
            id=UUID(run_id) if run_id else uuid4(),
            state=RunState.SUCCEEDED,
            step=8,
            steps=8,
            created_at=NOW,
        )
        self.world.runs[run.id] = run
        return run

    def policy(
        self, name: str, version: int, parent: UUID | None = None, run: UUID | None = None, step: int = 8
    ) -> UUID:
        wanted = PolicyIn(
            campaign_id=self.campaign,
            name=name,
            kind=PolicyKind.CHECKPOINT,
            version=version,
            parent_policy_id=parent,
            run_id=run,
            step=step,
        )
        return self.world.add_policy(wanted).id

    async def make(self) -> None:
        order = await standing(self.pool, questions=6, watermark=6)
        await self.pool.answer_all()
        self.early = await lease(self.pool, order, self.rl_run, 1)
        self.late = await lease(self.pool, order, self.rl_run, 5)
        await acknowledge(self.pool, self.early["batch_id"], self.rl_run, 1)
        [(probe,)] = await self.pool.execute("SELECT id FROM pool.orders WHERE purpose = 'probe'")
        self.snapshot = await built(self.pool, "s2r", "s2r", {"id": str(probe)}, build={"keep_probability": [1] * 4})
        sft = self.run("sft-1", snapshot_id=self.snapshot["id"])
        rl = self.run("rl", self.rl_run, order_id=order["id"])
        self.base = self.policy("base", 0)
        self.sft = self.policy("sft-1", 1, self.base, sft.id)
        self.first = self.policy("rl-step-4", 2, self.sft, rl.id, 4)
        self.last = self.policy("rl", 3, self.sft, rl.id, 8)
        self.child = self.policy("later", 4, self.last, uuid4())


def questions_of(batch: Any) -> set[str]:
    return {one["question"]["id"] for one in batch["groups"]}


async def test_from_a_question_to_its_policies_and_back(cascade: httpx.AsyncClient, pool: PoolClient, world: World):
    made = Trained(pool, world)
    await made.make()
    members = {str(row.question_id) for row in await pool.execute("SELECT question_id FROM pool.snapshot_questions")}

    async def reached(question: str) -> dict[str, bool]:
        answer = await ask(cascade, "GET", f"/v1/questions/{question}/lineage")
        return {policy["name"]: policy["inherited"] for policy in answer["policies"]}

    every = {str(row.id) for row in await pool.execute("SELECT id FROM pool.questions")}
    expected: dict[str, set[str]] = {
        "sft-1": members,
        "rl-step-4": set(members),
        "rl": set(members),
        "later": set(members),
    }
    expected["rl-step-4"] |= questions_of(made.early)
    expected["rl"] |= questions_of(made.early) | questions_of(made.late)
    expected["later"] |= expected["rl"]
    for question in every:
        found = await reached(question)
        assert set(found) == {name for name, touched_by in expected.items() if question in touched_by}
        assert found.get("later", True)
    names = {"sft-1": made.sft, "rl-step-4": made.first, "rl": made.last, "later": made.child}
    for name, policy in names.items():
        answer = await ask(cascade, "GET", f"/v1/policies/{policy}/lineage", params={"limit": 1000})
        assert {one["question_id"] for one in answer["questions"]} == expected[name]
    line = await ask(cascade, "GET", f"/v1/policies/{made.child}/lineage", params={"limit": 1})
    assert [one["name"] for one in line["ancestors"]] == ["rl", "sft-1", "base"]
    assert [one["run"] and one["run"]["key"] for one in line["ancestors"]] == ["rl", "sft-1", None]
    following = await ask(cascade, "GET", f"/v1/policies/{made.child}/lineage", params={"after": line["next"]})
    assert len(following["questions"]) == len(expected["later"]) - 1
    assert (await ask(cascade, "GET", f"/v1/policies/{made.base}/lineage"))["questions"] == []
    answer = await ask(cascade, "GET", f"/v1/questions/{next(iter(questions_of(made.early)))}/lineage")
    assert "rl" in [run["key"] for run in answer["trained_by"]]
    for path in (f"/v1/questions/{uuid4()}/lineage", f"/v1/policies/{uuid4()}/lineage"):
        await ask(cascade, "GET", path, 404)


async def test_retracting_lists_the_policies_that_were_touched(
    cascade: httpx.AsyncClient, pool: PoolClient, world: World
):
    made = Trained(pool, world)
    await made.make()
    late = next(iter(questions_of(made.late)))
    in_snapshot = late in {
        str(row.question_id) for row in await pool.execute("SELECT question_id FROM pool.snapshot_questions")
    }
    touched_by = (["sft-1", "rl-step-4"] if in_snapshot else []) + ["rl", "later"]

    world.down = {"training"}
    await ask(cascade, "POST", f"/v1/questions/{late}/retract", 503, json={"reason": "wrong"})
    world.down = set()
    for _ in range(2):
        answer = await ask(cascade, "POST", f"/v1/questions/{late}/retract", json={"reason": "wrong"})
        assert answer["status"] == "already"
        assert [policy["name"] for policy in answer["policies"]] == touched_by
        assert made.rl_run in answer["runs"]
    await ask(cascade, "POST", f"/v1/questions/{uuid4()}/retract", 404, json={"reason": "wrong"})
    await ask(cascade, "POST", f"/v1/questions/{late}/retract", 422, json={"reason": ""})
    body = {"reason": "wrong", "ids": [late, str(uuid4())]}
    many = await ask(cascade, "POST", "/v1/questions/retract", json=body)
    assert [item["status"] for item in many["items"]] == ["already", "not_found"]
    assert [policy["name"] for policy in many["items"][0]["policies"]] == touched_by
    assert many["items"][1]["policies"] == []


async def test_a_campaign_is_judged_again_by_the_verifiers_of_now(
    cascade: httpx.AsyncClient, pool: PoolClient, world: World
):
    campaign = await ask(cascade, "POST", "/v1/campaigns", 201, json={"name": "sums"})
    pool.campaign = campaign["id"]
    await pool.register()
    await pool.submit(3)
    await pool.order("teach", k=1)
    await pool.order("probe")
    await pool.answer_all("incorrect")
    answer = await ask(cascade, "POST", "/v1/campaigns/sums/reverify")
    orders = [await pool.ask("GET", f"/v1/orders/{order}") for order in answer["orders"]]
    assert [(order["purpose"], order["total"], order["k"]) for order in orders] == [
        ("reverify", 3, 1),
        ("reverify", 3, 4),
    ]
    assert answer["verifiers"]["math"] == "test@2"
    assert await ask(cascade, "POST", "/v1/campaigns/sums/reverify") == answer
    world.verifiers = dict.fromkeys(world.verifiers, "test@1")
    assert (await ask(cascade, "POST", "/v1/campaigns/sums/reverify"))["orders"] == []
    await ask(cascade, "POST", "/v1/campaigns/absent/reverify", 404)
