"""What the OpenAPI documents of all services have in common, so that a generated client is pleasant to use.

An operation is called like its function (`list_questions`), and names the one error body (`ProblemBody`) for each status
that can refuse a request, and as `default` for every other.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from shared.contracts.problems import ProblemBody

REFUSALS = {
    400: "The request cannot be read.",
    401: "The API key or the service token is missing or wrong.",
    403: "The API key has not the scope that this needs.",
    404: "What the request names does not exist.",
    409: "The request contradicts what is stored.",
    413: "The body is larger than this address takes.",
    415: "The body has a content type that this address does not read.",
    422: "A field or a parameter is wrong; `details` names it.",
    429: "Too much at once; repeat the request after `Retry-After` seconds.",
    503: "Something that this needs does not answer; repeat the request.",
}
OTHERS = "Any other failure, with the same body."
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


def describe(app: FastAPI) -> None:
    """Make `app.openapi()` and `/openapi.json` give the service's document, made once."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
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
    return document


def _response(meaning: str) -> dict[str, Any]:
    schema = {"$ref": _SCHEMAS.format(model="ProblemBody")}
    return {"description": meaning, "content": {"application/json": {"schema": schema, "example": _EXAMPLE}}}
