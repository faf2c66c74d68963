"""A drain on the real pool that judges stored responses again."""

from uuid import uuid4

import httpx
import pytest

from services.pool.main import create_app
from services.sampling.client import GenerationClient, PoolClient, VerificationClient
from services.sampling.service.drain import Drain
from shared.contracts.generation import SamplingParameters
from shared.contracts.orders import OrderIn, OrderPurpose
from shared.settings import Settings
from tests.integration.sampling.test_real_pool import NoHints
from tests.unit.sampling.fakes import SETTINGS, FakeGeneration, FakeVerification

pytestmark = pytest.mark.integration
QUESTIONS = 20


async def test_stored_responses_are_judged_again_without_an_engine(database_url: str):
    app = create_app(Settings(database_url=database_url), NoHints())
    generation, verification = FakeGeneration(), FakeVerification()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://pool") as pool,
        httpx.AsyncClient(transport=httpx.MockTransport(generation.answer), base_url="http://generation") as engine,
        httpx.AsyncClient(transport=httpx.MockTransport(verification.answer), base_url="http://v") as verifier,
    ):
        campaign = uuid4()
        (await pool.put(f"/v1/campaigns/{campaign}/settings", json={"name": "test"})).raise_for_status()
        questions = [{"question": str(number), "answer": str(number + 1)} for number in range(QUESTIONS)]
        (await pool.post(f"/v1/questions?campaign={campaign}", json=questions)).raise_for_status()
        wanted = OrderIn(
            campaign_id=campaign,
            key="probe",
            purpose=OrderPurpose.PROBE,
            policy_id=uuid4(),
            policy_version=0,
            k=2,
            sampling=SamplingParameters(),
        )
        order = (await pool.post("/v1/orders", json=wanted.model_dump(mode="json"))).raise_for_status().json()
        clients = PoolClient(pool), GenerationClient(engine), VerificationClient(verifier)
        await Drain(*clients, SETTINGS, "worker").run()
        asked = len(generation.requests)

        body = {"key": "again", "verifiers": ["math@newer"]}
        again = (await pool.post(f"/v1/orders/{order['id']}/reverify", json=body)).raise_for_status().json()
        verification.down = 1
        report = await Drain(*clients, SETTINGS, "worker").run()
        assert report.groups == {"stored": QUESTIONS}
        assert len(generation.requests) == asked
        flips = (await pool.get(f"/v1/orders/{again['id']}/flips")).raise_for_status().json()
        assert [(one["from_outcome"], one["to_outcome"], one["n"]) for one in flips["counts"]] == [
            ("correct", "correct", 2 * QUESTIONS)
        ]
