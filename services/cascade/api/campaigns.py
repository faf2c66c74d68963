"""HTTP in: campaigns and their report. `{campaign}` is an id or a name."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response, status

from services.cascade.client import Peers
from services.cascade.service.campaigns import Campaigns
from services.cascade.service.report import report
from services.cascade.service.reverification import reverify
from services.cascade.service.submission import JSON_TYPE, MAX_BODY_BYTES, parse
from shared.contracts.campaigns import Campaign, Report
from shared.contracts.reverification import ReverifyCampaign
from shared.db import Database

router = APIRouter(prefix="/v1/campaigns", tags=["campaigns"])


def _database(request: Request) -> Database:
    return cast("Database", request.app.state.database)


def _peers(request: Request) -> Peers:
    return cast("Peers", request.app.state.peers)


def _campaigns(
    database: Annotated[Database, Depends(_database)], peers: Annotated[Peers, Depends(_peers)]
) -> Campaigns:
    return Campaigns(database, peers)


def _identifier(campaign: str) -> UUID | str:
    try:
        return UUID(campaign)
    except ValueError:
        return campaign


Service = Annotated[Campaigns, Depends(_campaigns)]
Identifier = Annotated[UUID | str, Depends(_identifier)]


@router.post("", status_code=status.HTTP_201_CREATED, responses={200: {"model": Campaign}})
async def create_campaign(request: Request, response: Response, service: Service) -> Campaign:
    """Create a campaign; 200 when it exists with this very recipe, 409 when with another."""
    media_type = request.headers.get("content-type", JSON_TYPE).partition(";")[0].strip().lower()
    campaign, created = await service.create(parse(await _body(request), media_type))
    if not created:
        response.status_code = status.HTTP_200_OK
    return campaign


async def _body(request: Request) -> bytes:
    """The body, not read much further than its limit."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            break
    return bytes(body)


@router.get("")
async def list_campaigns(service: Service) -> list[Campaign]:
    """Every campaign, newest first."""
    return await service.list()


@router.get("/{campaign}")
async def get_campaign(campaign: Identifier, service: Service) -> Campaign:
    """One campaign and where it stands now."""
    return await service.get(campaign)


@router.post("/{campaign}/cancel")
async def cancel_campaign(campaign: Identifier, service: Service) -> Campaign:
    """Stop a campaign for good."""
    return await service.cancel(campaign)


@router.post("/{campaign}/resume")
async def resume_campaign(campaign: Identifier, service: Service) -> Campaign:
    """Try the failed stage of a campaign once more."""
    return await service.resume(campaign)


@router.post("/{campaign}/reverify")
async def reverify_campaign(
    campaign: Identifier,
    database: Annotated[Database, Depends(_database)],
    peers: Annotated[Peers, Depends(_peers)],
) -> ReverifyCampaign:
    """Judge what older verifiers judged again; `GET /v1/orders/{id}/flips` says what came of each order."""
    return await reverify(database, peers, campaign)


@router.get("/{campaign}/report")
async def get_campaign_report(
    campaign: Identifier,
    database: Annotated[Database, Depends(_database)],
    peers: Annotated[Peers, Depends(_peers)],
) -> Report:
    """What each policy is worth and what it cost, also half-way."""
    return await report(database, peers, campaign)
