"""HTTP in: the API key first, then the document, then everything else through the proxy."""

from typing import Any, cast

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway.keys import KeyCheck
from services.gateway.openapi import Documentation
from services.gateway.proxy import Proxy
from shared.errors import HeadwaterError
from shared.problems import problem_response

OPEN_PATHS = frozenset({"/health/live", "/health/ready", "/openapi.json", "/docs", "/docs/oauth2-redirect"})
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

document_router = APIRouter(include_in_schema=False)
proxy_router = APIRouter(include_in_schema=False)


class RequireKey:
    """Lets nothing through without a valid API key, apart from OPEN_PATHS. `request.state.key`: who asks."""

    def __init__(self, app: ASGIApp, check: KeyCheck) -> None:
        self._app = app
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then go on."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN_PATHS):
            await self._app(scope, receive, send)
            return
        try:
            holder = await self._check.holder(Headers(scope=scope).get("authorization"))
        except HeadwaterError as error:
            response = problem_response(error.problem(), error.status)
            if error.status == 401:
                response.headers["WWW-Authenticate"] = "Bearer"
            await response(scope, receive, send)
            return
        scope.setdefault("state", {})["key"] = holder
        await self._app(scope, receive, send)


def replace_document(app: FastAPI) -> None:
    """Serve the merged document in place of the gateway's own."""
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") != app.openapi_url]
    app.include_router(document_router)


@document_router.get("/openapi.json")
async def openapi(request: Request) -> dict[str, Any]:
    """The document of everything public."""
    return await cast("Documentation", request.app.state.documentation).document()


@proxy_router.api_route("/{path:path}", methods=METHODS)
async def forward(request: Request) -> Response:
    """Whatever is public, by the service that answers it."""
    return await cast("Proxy", request.app.state.proxy).forward(request)
