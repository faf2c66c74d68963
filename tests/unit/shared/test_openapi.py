"""Every service's document: good names, and the one error body wherever a request can be refused."""

import re
from typing import Any

import pytest
from fastapi import FastAPI

from services.cascade.main import create_app as cascade
from services.generation.main import create_app as generation
from services.generation.settings import GenerationSettings
from services.pool.main import create_app as pool
from services.training.main import create_app as training
from services.training.settings import TrainingSettings
from services.verification.main import create_app as verification
from shared.openapi import REFUSALS
from shared.settings import Settings

URL = "postgresql+asyncpg://nobody@127.0.0.1:1/nothing"


@pytest.fixture(scope="module")
def documents() -> dict[str, dict[str, Any]]:
    """The documents by service; nothing is connected for them."""
    apps: dict[str, FastAPI] = {
        "pool": pool(Settings(database_url=URL)),
        "cascade": cascade(Settings(database_url=URL)),
        "training": training(TrainingSettings(database_url=URL)),
        "generation": generation(GenerationSettings(database_url=URL)),
        "verification": verification(),
    }
    return {name: app.openapi() for name, app in apps.items()}


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
