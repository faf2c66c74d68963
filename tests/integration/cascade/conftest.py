"""A campaign in a real database, in a world of fake services."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from services.cascade.service.advance import Advancer
from services.cascade.service.campaigns import Campaigns
from shared.contracts.campaigns import Campaign, CampaignIn, CampaignStatus
from shared.contracts.recipe import Recipe
from shared.db import Database
from tests.integration.cascade.world import World

Walk = Callable[[Campaign], Awaitable[Campaign]]


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The migrated database."""
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
def world() -> World:
    """The other services, in good health."""
    return World()


@pytest.fixture
def campaigns(database: Database, world: World) -> Campaigns:
    """The service under test."""
    return Campaigns(database, world.peers)


@pytest.fixture
def advancer(database: Database, world: World) -> Advancer:
    """The state machine under test."""
    return Advancer(database, world.peers)


@pytest_asyncio.fixture
async def campaign(campaigns: Campaigns) -> Campaign:
    """A new campaign."""
    return (await campaigns.create(CampaignIn(name="first", recipe=Recipe())))[0]


@pytest.fixture
def walk(advancer: Advancer, campaigns: Campaigns) -> Walk:
    """Advances a campaign until it has ended, or waits with nothing moving any more."""

    async def walk(campaign: Campaign) -> Campaign:
        for _ in range(100):
            await advancer.advance(campaign.id)
            campaign = await campaigns.get(campaign.id)
            if campaign.status is not CampaignStatus.RUNNING:
                return campaign
        raise AssertionError(f"the campaign is stuck in {campaign.stage}: {campaign.message}")

    return walk
