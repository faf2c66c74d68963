"""Who gets through the door, to where, and that bodies flow."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import text
from starlette.types import Receive, Scope, Send

from services.gateway.doors import DOORS
from services.gateway.keys import CACHE_S, KeyCheck
from shared.db import Database
from shared.errors import HeadwaterError
from tests.integration.gateway.conftest import Open

pytestmark = pytest.mark.integration


class Echo:
    """An app that tells what reached it."""

    def __init__(self) -> None:
        self.app = FastAPI(openapi_url=None)
        self.seen: list[tuple[str, str]] = []
        self.app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])(self.answer)

    async def answer(self, request: Request) -> dict[str, object]:
        """What came in."""
        self.seen.append((request.method, request.url.path))
        body = await request.body()
        return {"headers": request.headers.items(), "query": request.url.query, "bytes": len(body)}


async def test_nothing_opens_without_a_valid_key(behind: Open):
    echo = Echo()
    client = await behind(echo.app)
    for wrong in ("", "Bearer hw_wrong", "Bearer sk-other", "Basic aHc6", "Bearer"):
        for path in ("/v1/pools", "/metrics", "/v1/campaigns", "/nowhere"):
            refused = await client.get(path, headers={"Authorization": wrong})
            assert refused.status_code == 401, (wrong, path)
            assert refused.json()["error"]["code"] == "unauthorized"
    assert echo.seen == []
    assert (await client.get("/v1/pools")).status_code == 200
    anonymous = {"Authorization": ""}
    for path in ("/health/live", "/health/ready", "/openapi.json", "/docs"):
        assert (await client.get(path, headers=anonymous)).status_code == 200, path
    assert (await client.get("/metrics")).status_code == 200


async def test_a_revoked_key_is_refused_when_the_cache_has_forgotten_it(database: Database, key: str):
    now_s = 100.0
    check = KeyCheck(database, lambda: now_s)
    assert (await check.holder(f"Bearer {key}")).scopes == ("read", "submit", "train", "admin")
    async with database.transaction() as session:
        stored = (await session.execute(text("SELECT * FROM gateway.api_keys"))).one()
        assert key not in str(stored)
        await session.execute(text("UPDATE gateway.api_keys SET revoked_at = now()"))
    await check.holder(f"bearer {key}")
    now_s += CACHE_S
    with pytest.raises(HeadwaterError, match="revoked"):
        await check.holder(f"Bearer {key}")


async def test_the_service_gets_the_service_token_and_never_the_key(behind: Open):
    client = await behind(Echo().app)
    mine = {
        "X-Headwater-Service-Token": "forged",
        "Connection": "x-secret",
        "X-Secret": "1",
        "TE": "trailers",
        "X-Kept": "yes",
    }
    answer = (await client.post("/v1/questions?campaign=a%2Fb&x=1", headers=mine, content=b"abc")).json()
    names = [name for name, _ in answer["headers"]]
    headers = dict(answer["headers"])
    assert headers["x-headwater-service-token"] == "inside"
    assert headers["x-kept"] == "yes"
    assert headers["content-length"] == "3"
    assert names.count("x-headwater-service-token") == 1
    assert not {"authorization", "te", "x-secret", "transfer-encoding"} & set(names)
    assert (answer["query"], answer["bytes"]) == ("campaign=a%2Fb&x=1", 3)


INTERNAL = (
    ("PUT", "/v1/campaigns/1/settings"),
    ("POST", "/v1/orders"),
    ("POST", "/v1/orders/1/close"),
    ("PUT", "/v1/orders/1/policy"),
    ("POST", "/v1/groups"),
    ("POST", "/v1/assignments/claim"),
    ("POST", "/v1/batches/lease"),
    ("POST", "/v1/samples"),
    ("POST", "/v1/verdicts"),
    ("DELETE", "/v1/campaigns/1"),
    ("GET", "/v1/ordersandmore"),
    ("POST", "/v1/questions/../assignments/claim"),
    ("POST", "/v1/questions/%2e%2e/assignments/claim"),
    ("POST", "/v1/questions/..%2fassignments%2fclaim"),
    ("POST", "/v1/questions//assignments"),
    ("POST", "/v1/questions/x%00y"),
    ("GET", "/v1/runs/..%5corders"),
    ("GET", "/v1/pools/1"),
    ("GET", "/health/live/../../v1/orders"),
)


async def test_internal_paths_cannot_be_reached(behind: Open):
    """Sent as raw bytes, so that no client tidies them up."""
    echo = Echo()
    client = await behind(echo.app)
    for method, path in INTERNAL:
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n"
        writer.write(f"{head}Authorization: {client.headers['authorization']}\r\n\r\n".encode())
        status = (await reader.read()).split(b" ")[1]
        writer.close()
        assert status in (b"404", b"405"), (method, path)
        assert echo.seen == [], (method, path)


async def test_every_door_leads_to_its_service(behind: Open):
    echo = Echo()
    client = await behind(echo.app)
    for door in DOORS:
        for method in sorted(door.methods):
            assert (await client.request(method, door.path)).status_code == 200
            assert echo.seen[-1] == (method, door.path)


async def test_bodies_stream_in_both_directions(behind: Open):
    """Each side sends its next piece only when the other has seen the last one: a buffer anywhere would stop it for ever."""
    app, arrived, sent = FastAPI(), asyncio.Event(), asyncio.Event()

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> StreamingResponse:
        pieces = request.stream()
        assert await anext(pieces) == b"first question"
        arrived.set()
        rest = b"".join([piece async for piece in pieces])
        assert rest == b"second question"

        async def answer() -> AsyncIterator[bytes]:
            yield b"first answer"
            await sent.wait()
            yield b"second answer"

        return StreamingResponse(answer(), status_code=201, headers={"x-mine": "1"})

    async def question() -> AsyncIterator[bytes]:
        yield b"first question"
        await arrived.wait()
        yield b"second question"

    client = await behind(app)
    async with client.stream("POST", "/v1/chat/completions", content=question()) as response:
        assert (response.status_code, response.headers["x-mine"]) == (201, "1")
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"first answer"
        sent.set()
        assert b"".join([piece async for piece in pieces]) == b"second answer"


async def test_a_service_that_is_down_is_named(behind: Open):
    client = await behind(None)
    for path, service in {
        "/v1/campaigns": "cascade",
        "/v1/pools": "pool",
        "/v1/engine": "generation",
        "/v1/runs": "training",
    }.items():
        refused = await client.get(path)
        assert refused.status_code == 503
        assert f"service {service} does not answer" in refused.json()["error"]["message"]
    assert (await client.get("/openapi.json")).json()["paths"] == {}


async def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(behind: Open):
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ConnectionResetError

    client = await behind(broken)
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get("/v1/groups")
    assert (await client.get("/health/live")).status_code == 200


async def test_one_document_describes_all_that_is_public(behind: Open):
    app = FastAPI()

    @app.get("/v1/pools")
    async def pools(campaign: str) -> str:
        return campaign

    @app.post("/v1/assignments/claim")
    async def claim() -> None:
        """Internal."""

    document = (await (await behind(app)).get("/openapi.json")).json()
    assert list(document["paths"]) == ["/v1/pools"]
    assert document["paths"]["/v1/pools"]["get"]["tags"] == ["pool"]
    assert document["security"] == [{"ApiKey": []}]
    assert document["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
