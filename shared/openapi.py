"""What the OpenAPI documents of all services have in common, so that a generated client is pleasant to use.

An operation is called like its function (`list_questions`), and names the one error body (`ProblemBody`) for each status
that can refuse a request, and as `default` for every other. What a route reads from the stream itself is described by
`RequestBodies`, for FastAPI does not see it.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from shared.contracts.problems import ProblemBody

REFUSALS = {
    400: "The request cannot be read.",
    401: "The API key or the service token is missing or wrong.",
    403: "The API key has not the scope that this needs.",
    404: "What the request names does not exist.",
    408: "The body stopped coming before its end.",
    409: "The request contradicts what is stored.",
    413: "The body is larger than this address takes.",
    415: "The body has a content type that this address does not read.",
    422: "A field or a parameter is wrong; `details` names it.",
    429: "Too much at once; repeat the request after `Retry-After` seconds.",
    503: "Something that this needs does not answer; repeat the request.",
}
OTHERS = "Any other failure, with the same body."
BYTES = {"type": "string", "format": "binary"}
# By operation and content type: a type, or a schema as it is. Every operation that is named has to be there.
RequestBodies = Mapping[str, Mapping[str, Any]]
_SCHEMAS = "#/components/schemas/{model}"
_EXAMPLE = {
    "error": {
        "code": "invalid_request",
        "message": "The request is not valid. limit: Input should be less than or equal to 1000",
        "details": [
            {
                "item": None,
                "field": "limit",
                "reason": "less_than_equal",
                "message": "Input should be less than or equal to 1000",
            }
        ],
    }
}


def operation_id(route: APIRoute) -> str:
    """The operation is called like its function."""
    return route.name


def describe(app: FastAPI, bodies: RequestBodies) -> None:
    """Make `app.openapi()` and `/openapi.json` give the service's document, made once."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, bodies)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI, bodies: RequestBodies) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        routes=app.routes,
        separate_input_output_schemas=False,
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    _, problems = models_json_schema([(ProblemBody, "validation")], ref_template=_SCHEMAS)
    schemas |= problems["$defs"]
    names = {str(status): f"Problem{status}" for status in REFUSALS} | {"default": "Problem"}
    described = {f"Problem{status}": meaning for status, meaning in REFUSALS.items()} | {"Problem": OTHERS}
    components["responses"] = {name: _response(meaning) for name, meaning in described.items()}
    for operations in document.get("paths", {}).values():
        for operation in operations.values():
            own = {status: answer for status, answer in operation["responses"].items() if status.startswith("2")}
            refusals = {status: {"$ref": f"#/components/responses/{name}"} for status, name in names.items()}
            operation["responses"] = own | refusals
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _without_null(parameter["schema"])
    _describe_bodies(document, bodies)
    return document


def _describe_bodies(document: dict[str, Any], bodies: RequestBodies) -> None:
    operations = {
        operation["operationId"]: operation for methods in document["paths"].values() for operation in methods.values()
    }
    schemas = document["components"]["schemas"]
    for name, types in bodies.items():
        content = {kind: {"schema": _hoisted(read, schemas)} for kind, read in types.items()}
        # Generated clients give a choice of bodies as one argument that may be left out, and need to be told that it may.
        operations[name]["requestBody"] = {"required": len(content) == 1, "content": content}


def _hoisted(read: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type, with its models among the document's own."""
    if isinstance(read, dict):
        return read
    schema = TypeAdapter(read).json_schema(ref_template=_SCHEMAS)
    for name, definition in schema.pop("$defs", {}).items():
        schemas.setdefault(name, definition)
    if "properties" not in schema:
        return schema
    schemas.setdefault(schema["title"], schema)
    return {"$ref": _SCHEMAS.format(model=schema["title"])}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter, which is left out where a field would be null."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if not choices:
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return rest | (choices[0] if len(choices) == 1 else {"anyOf": choices})


def _response(meaning: str) -> dict[str, Any]:
    schema = {"$ref": _SCHEMAS.format(model="ProblemBody")}
    return {"description": meaning, "content": {"application/json": {"schema": schema, "example": _EXAMPLE}}}
