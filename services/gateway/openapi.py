"""One OpenAPI document out of the services' own: public paths only, one security scheme, names that do not collide.

A client generated from it has a method an operation, called like its `operationId`, in a module a tag.

Fetched when it is first asked for and kept for CACHE_S. A service that does not answer is missing until it does; then
the document is not kept.
"""

import asyncio
import copy
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from services.gateway.doors import addresses, door_for
from shared.errors import HeadwaterError
from shared.settings import Settings

CACHE_S = 60.0
TIMEOUT_S = 5.0
_SCHEMAS, _RESPONSES = "#/components/schemas/", "#/components/responses/"
_SECURITY = "ApiKey"
Document = dict[str, Any]
log = logging.getLogger(__name__)


class Documentation:
    """The merged document."""

    def __init__(
        self, http: httpx.AsyncClient, settings: Settings, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._http = http
        self._addresses = addresses(settings)
        self._clock_s = clock_s
        self._kept: tuple[float, Document] | None = None

    async def document(self) -> Document:
        """The document as of at most CACHE_S ago."""
        if self._kept and self._clock_s() < self._kept[0]:
            return self._kept[1]
        fetched = await asyncio.gather(*(self._fetch(service) for service in self._addresses))
        answered = {
            name: document for name, document in zip(self._addresses, fetched, strict=True) if document is not None
        }
        merged = merge(answered)
        if len(answered) == len(self._addresses):
            self._kept = (self._clock_s() + CACHE_S, merged)
        return merged

    async def _fetch(self, service: str) -> Document | None:
        try:
            response = await self._http.get(f"{self._addresses[service]}/openapi.json", timeout=TIMEOUT_S)
            response.raise_for_status()
            document = response.json()
        except (httpx.HTTPError, ValueError) as error:
            log.warning("the OpenAPI document goes without %s: %r", service, error)
            return None
        return document if isinstance(document, dict) else None


def merge(documents: dict[str, Document]) -> Document:
    """One document out of those of the services, by name."""
    paths: Document = {}
    schemas: Document = {}
    responses: Document = {}
    operations: set[str] = set()
    for service, document in documents.items():
        components = document.get("components", {})
        own_paths = _public_paths(service, document, operations)
        named = components.get("responses", {})
        own_responses = {name: named[name] for name in _references(own_paths, _RESPONSES) if name in named}
        own_schemas = _used_schemas([own_paths, own_responses], components.get("schemas", {}))
        names = {
            name: f"{service}_{name}" if schemas.get(name, schema) != schema else name
            for name, schema in own_schemas.items()
        }
        renamed = {old: new for old, new in names.items() if old != new}
        for name, schema in own_schemas.items():
            titled = schema if name == names[name] else schema | {"title": names[name]}
            schemas[names[name]] = _renamed(titled, renamed)
        responses |= _renamed(own_responses, renamed)
        for path, methods in own_paths.items():
            paths.setdefault(path, {}).update(_renamed(methods, renamed))
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headwater", "version": "0.1.0", "description": "Questions in, a better model out."},
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": dict(sorted(responses.items())),
            "securitySchemes": {_SECURITY: {"type": "http", "scheme": "bearer", "bearerFormat": "hw_…"}},
        },
        "security": [{_SECURITY: []}],
    }


def _public_paths(service: str, document: Document, taken: set[str]) -> Document:
    """The public operations of a service; one whose name is `taken` is called after its service too."""
    public: Document = {}
    for path, operations in document.get("paths", {}).items():
        for method, operation in operations.items():
            if _is_public(service, method.upper(), path):
                labelled = {"tags": [service], **copy.deepcopy(operation)}
                name = labelled["operationId"]
                labelled["operationId"] = f"{service}_{name}" if name in taken else name
                taken.add(labelled["operationId"])
                public.setdefault(path, {})[method] = labelled
    return public


def _is_public(service: str, method: str, path: str) -> bool:
    try:
        return door_for(method, path).service == service
    except HeadwaterError:
        return False


def _used_schemas(parts: list[Document], schemas: Document) -> Document:
    """The schemas that the parts refer to, also through others."""
    used: Document = {}
    found = list(_references(parts, _SCHEMAS))
    while found:
        name = found.pop()
        if name not in used and name in schemas:
            used[name] = schemas[name]
            found.extend(_references(schemas[name], _SCHEMAS))
    return used


def _references(node: Any, kind: str) -> Iterator[str]:
    """The names of the components of a kind that the node refers to."""
    if isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith(kind):
            yield reference.removeprefix(kind)
    for child in _children(node):
        yield from _references(child, kind)


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def _renamed(node: Any, names: dict[str, str]) -> Any:
    """The node with its references to renamed schemas following them."""
    if isinstance(node, list):
        return [_renamed(child, names) for child in node]
    if not isinstance(node, dict):
        return node
    changed = {key: _renamed(child, names) for key, child in node.items()}
    reference = changed.get("$ref")
    if isinstance(reference, str) and reference.startswith(_SCHEMAS):
        name = reference.removeprefix(_SCHEMAS)
        changed["$ref"] = f"{_SCHEMAS}{names.get(name, name)}"
    return changed
