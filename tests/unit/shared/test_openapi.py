"""Every service's document: good names, and the one error body wherever a request can be refused."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from services.cascade.main import create_app as cascade
from services.generation.main import create_app as generation
from services.generation.settings import GenerationSettings
from services.pool.main import create_app as pool
from services.training.main import create_app as training
from services.training.settings import TrainingSettings
from services.verification.main import create_app as verification
from shared.contracts.campaigns import CampaignIn
from shared.contracts.orders import GroupBatch
from shared.contracts.questions import QuestionIn
from shared.openapi import REFUSALS
from shared.settings import Settings

URL = "postgresql+asyncpg://nobody@127.0.0.1:1/nothing"


@pytest.fixture(scope="module")
def apps() -> dict[str, FastAPI]:
    """The services; nothing is connected for them."""
    return {
        "pool": pool(Settings(database_url=URL)),
        "cascade": cascade(Settings(database_url=URL)),
        "training": training(TrainingSettings(database_url=URL)),
        "generation": generation(GenerationSettings(database_url=URL)),
        "verification": verification(),
    }


@pytest.fixture(scope="module")
def documents(apps: dict[str, FastAPI]) -> dict[str, dict[str, Any]]:
    """The documents by service."""
    return {name: app.openapi() for name, app in apps.items()}


def lists(schema: Any) -> Iterator[dict[str, Any]]:
    """The core schemas of lists of any length, however deep."""
    if isinstance(schema, dict):
        is_fixed = schema.get("type") == "tuple" and "variadic_item_index" not in schema
        if schema.get("type") in ("list", "tuple", "set", "frozenset") and "items_schema" in schema and not is_fixed:
            yield schema
        schema = [part for name, part in schema.items() if name != "serialization"]
    if isinstance(schema, list | tuple):
        yield from (found for part in schema for found in lists(part))


def test_lists_of_requests_are_read_up_to_their_first_wrong_item(apps: dict[str, FastAPI]):
    routes = [route for app in apps.values() for route in app.routes if isinstance(route, APIRoute)]
    bodies: set[Any] = {route.body_field.field_info.annotation for route in routes if route.body_field is not None}
    bodies |= {GroupBatch, CampaignIn, QuestionIn}
    assert len(bodies) > 15
    number = 0
    for body in bodies:
        for found in lists(TypeAdapter(body).core_schema):
            assert found.get("fail_fast"), f"{body} has a list that is not one of `shared.contracts.base.Items`"
            number += 1
    assert number > 15


def operations(documents: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        operation
        for document in documents.values()
        for methods in document["paths"].values()
        for operation in methods.values()
    ]


def test_every_operation_has_a_name_of_its_own_that_is_a_good_method_name(documents: dict[str, dict[str, Any]]):
    for service, document in documents.items():
        of_service = [operation["operationId"] for operation in operations({service: document})]
        assert len(of_service) == len(set(of_service)) > 0, service
    names = {operation["operationId"] for operation in operations(documents)}
    assert len(names) > 30
    for name in names:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", name), name
        assert not name.endswith(("_get", "_post", "_put", "_delete")), name
    assert all(operation["tags"] for operation in operations(documents))


def test_every_refusal_has_the_one_error_body(documents: dict[str, dict[str, Any]]):
    expected = {str(status) for status in REFUSALS} | {"default"}
    for operation in operations(documents):
        assert expected <= set(operation["responses"]), operation["operationId"]
    for name, document in documents.items():
        for response in document["components"]["responses"].values():
            schema = response["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ProblemBody"}, name
        assert "HTTPValidationError" not in document["components"]["schemas"]
