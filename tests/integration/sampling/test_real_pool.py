"""Drains against the real pool on a real Postgres: a killed drain's questions come back, and none is sampled into two groups."""

import asyncio
import contextlib
from uuid import UUID, uuid4

import httpx
import pytest

from services.pool.main import create_app
from services.sampling.client import GenerationClient, PoolClient, VerificationClient
from services.sampling.service.drain import Drain
from shared.contracts.generation import PromptSamples, SamplingParameters
from shared.contracts.orders import Order, OrderIn, OrderPurpose, OrderState
from shared.contracts.recipe import RouterRecipe
from shared.settings import Settings
from tests.unit.sampling.fakes import SETTINGS, FakeGeneration, FakeVerification

pytestmark = pytest.mark.integration
QUESTIONS = 60


class NoHints:
    """Hints that nobody hears."""

    def drain(self) -> None:
        """Nothing."""

    def advance(self, campaign_id: UUID) -> None:
        """Nothing."""

    async def close(self) -> None:
        """Nothing."""


async def test_killed_half_way_everything_is_stored_once(database_url: str):
    app = create_app(Settings(database_url=database_url), NoHints())
    generation, verification = FakeGeneration(), FakeVerification()
    short = SETTINGS.model_copy(update={"lease_s": 1.0, "quiet_polls": 400})
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://pool") as pool,
        httpx.AsyncClient(transport=httpx.MockTransport(generation.answer), base_url="http://generation") as engine,
        httpx.AsyncClient(transport=httpx.MockTransport(verification.answer), base_url="http://v") as verifier,
    ):
        campaign = uuid4()
        settings = {"name": "test", "router": RouterRecipe().model_dump(mode="json")}
        (await pool.put(f"/v1/campaigns/{campaign}/settings", json=settings)).raise_for_status()
        questions = [{"question": str(number), "answer": str(number + 1)} for number in range(QUESTIONS)]
        (await pool.post(f"/v1/questions?campaign={campaign}", json=questions)).raise_for_status()
        wanted = OrderIn(
            campaign_id=campaign,
            key="probe",
            purpose=OrderPurpose.PROBE,
            policy_id=uuid4(),
            policy_version=0,
            k=4,
            sampling=SamplingParameters(),
        )
        order = (await pool.post("/v1/orders", json=wanted.model_dump(mode="json"))).raise_for_status().json()
        clients = PoolClient(pool), GenerationClient(engine), VerificationClient(verifier)

        async def progress() -> Order:
            return Order.model_validate_json((await pool.get(f"/v1/orders/{order['id']}")).content)

        errors = ["prompt-too-long", "engine-down"]
        generation.line = lambda request, id_, text: PromptSamples(id=id_, error=errors.pop()) if errors else None
        generation.hold = lambda text: len(generation.requests) > 3
        killed = asyncio.create_task(Drain(*clients, short, "killed").run())
        while (await progress()).done < 3:
            await asyncio.sleep(0.02)
        killed.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await killed
        assert (await progress()).done < QUESTIONS

        generation.hold = lambda text: False
        while (await progress()).state is OrderState.OPEN:
            await Drain(*clients, short, "second").run()
        final = await progress()
        assert (final.state, final.done, final.dead) == (OrderState.COMPLETE, QUESTIONS, 0)
        page = (await pool.get(f"/v1/groups?order={order['id']}&limit=200")).json()["items"]
        assert len({group["question"]["id"] for group in page}) == len(page) == QUESTIONS
        assert all(len(group["responses"]) == 4 for group in page)
