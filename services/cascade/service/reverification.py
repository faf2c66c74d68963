"""Re-verification of a campaign: one order for each order that sampled, judged by the verifiers of now."""

import hashlib
from uuid import UUID

from services.cascade.client import Peers
from services.cascade.repository import CampaignRepository
from shared.contracts.orders import Order, OrderPurpose
from shared.contracts.reverification import ReverifyCampaign, ReverifyIn
from shared.db import Database
from shared.errors import NotFoundError


async def reverify(database: Database, peers: Peers, campaign: UUID | str) -> ReverifyCampaign:
    """Order what older verifiers judged to be judged again; the same verifiers again order nothing new.

    Raises: NotFoundError; HeadwaterError of a peer, after which repeating it goes on.
    """
    async with database.transaction() as session:
        row = await CampaignRepository(session).find(campaign)
        if row is None:
            raise NotFoundError("campaign", campaign)
        campaign_id = row.id
    verifiers = (await peers.verification.verifiers()).verifiers
    names = tuple(sorted(set(verifiers.values())))
    made = [
        await peers.pool.reverify(order.id, ReverifyIn(key=key_of(order, names), verifiers=names))
        for order in await peers.pool.orders(campaign_id)
        if order.purpose not in (OrderPurpose.REVERIFY, OrderPurpose.VERIFY)
    ]
    return ReverifyCampaign(verifiers=verifiers, orders=tuple(order.id for order in made if order.total))


def key_of(order: Order, verifiers: tuple[str, ...]) -> str:
    """An order is judged again once by the same verifiers."""
    return f"reverify-{order.id}-{hashlib.sha256(' '.join(verifiers).encode()).hexdigest()[:12]}"
