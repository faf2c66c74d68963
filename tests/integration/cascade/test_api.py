"""The campaigns API over HTTP."""

from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from services.cascade.main import create_app
from services.cascade.repository import CampaignRepository
from services.cascade.service.advance import Advancer
from services.cascade.service.plan import NAMES
from shared.contracts.campaigns import Campaign, CampaignIn, Report, StageName
from shared.contracts.recipe import LoraRecipe, Recipe, RlRecipe, SftRecipe, TeacherRecipe, TeachRecipe
from shared.db import Database
from shared.settings import Settings
from tests.integration.cascade.world import World

pytestmark = pytest.mark.integration
TOML = {"content-type": "application/toml"}


@pytest_asyncio.fixture
async def http(database_url: str, world: World) -> AsyncIterator[httpx.AsyncClient]:
    """The API, with the world behind it."""
    app = create_app(Settings(database_url=database_url))
    async with app.router.lifespan_context(app):
        app.state.peers = world.peers
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://cascade") as client:
            yield client


async def test_the_same_campaign_twice_is_one_and_another_recipe_is_a_conflict(http: httpx.AsyncClient, world: World):
    body = {"name": "sums", "recipe": {"seed": 7, "rl": {"learning_rate": 3e-5}}}
    first = await http.post("/v1/campaigns", json=body)
    again = await http.post(
        "/v1/campaigns", content='name = "sums"\nseed = 7\n[rl]\nlearning_rate = 3e-5', headers=TOML
    )
    other = await http.post("/v1/campaigns", json=body | {"recipe": {"seed": 8}})

    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert first.json()["id"] == again.json()["id"]
    assert "choose another name" in other.json()["error"]["message"]
    assert [settings["name"] for settings in world.campaigns.values()] == ["sums"]


async def test_a_campaign_is_found_by_id_and_by_name_with_live_progress(
    http: httpx.AsyncClient, world: World, advancer: Advancer
):
    made = Campaign.model_validate((await http.post("/v1/campaigns", json={"name": "sums"})).json())
    await advancer.advance(made.id)
    await http.get("/v1/campaigns/sums")
    by_name = Campaign.model_validate((await http.get("/v1/campaigns/sums")).json())
    assert by_name.stages[1].name is StageName.EVAL_BASE
    assert (by_name.stages[1].done, by_name.stages[1].total, by_name.stages[1].unit) == (5, 10, "questions")

    world.down = {"pool"}
    by_id = Campaign.model_validate((await http.get(f"/v1/campaigns/{made.id}")).json())
    assert by_id.id == made.id
    assert "pool does not answer" in by_id.stages[1].detail
    assert [one["name"] for one in (await http.get("/v1/campaigns")).json()] == ["sums"]
    assert (await http.get("/v1/campaigns/other")).json()["error"]["message"] == "There is no campaign other."


async def test_a_pool_that_is_down_loses_no_campaign(http: httpx.AsyncClient, world: World, advancer: Advancer):
    world.down = {"pool"}
    refused = await http.post("/v1/campaigns", json={"name": "sums"})
    assert (refused.status_code, refused.json()["error"]["message"]) == (503, "pool does not answer")
    world.down = set()
    assert (await http.post("/v1/campaigns", json={"name": "sums"})).status_code == 200
    assert len(world.campaigns) == 1


async def test_bad_campaigns_are_refused_with_a_sentence(http: httpx.AsyncClient, world: World):
    unknown = await http.post("/v1/campaigns", content='name = "x"\n[rl]\nlearning_rat = 1', headers=TOML)
    assert unknown.status_code == 422
    assert unknown.json()["error"]["details"][0]["field"] == "rl.learning_rat"
    assert "did you mean 'rl.learning_rate'?" in unknown.json()["error"]["message"]
    nul = await http.post("/v1/campaigns", json={"name": "x", "recipe": {"model": {"base": "a\x00"}}})
    assert nul.status_code == 422
    assert (await http.post("/v1/campaigns", content=b"{}" + b" " * (1 << 20))).status_code == 413
    assert not world.campaigns


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(teach=TeachRecipe(teacher=TeacherRecipe(url="host/v1"))),
        Recipe(sft1=SftRecipe(lora=LoraRecipe(rank=8)), rl=RlRecipe(lora=LoraRecipe(rank=16))),
    ],
)
async def test_a_stored_recipe_that_would_be_refused_today_stays_readable(
    http: httpx.AsyncClient, database: Database, recipe: Recipe
):
    async with database.transaction() as session:
        await CampaignRepository(session).insert(uuid4(), CampaignIn.model_construct(name="old", recipe=recipe), NAMES)
    listed = await http.get("/v1/campaigns")
    assert [Campaign.model_validate(one).recipe for one in listed.json()] == [recipe]
    again = await http.post("/v1/campaigns", json={"name": "new", "recipe": recipe.model_dump(mode="json")})
    assert again.status_code == 422


async def test_report_cancel_and_health(http: httpx.AsyncClient):
    await http.post("/v1/campaigns", json={"name": "sums"})
    Report.model_validate((await http.get("/v1/campaigns/sums/report")).json())
    assert (await http.post("/v1/campaigns/sums/cancel")).json()["status"] == "cancelled"
    assert (await http.post("/v1/campaigns/sums/cancel")).json()["status"] == "cancelled"
    assert (await http.post("/v1/campaigns/sums/resume")).status_code == 409
    assert (await http.get("/health/ready")).status_code == 200
