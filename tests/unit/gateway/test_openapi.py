"""The merged document."""

import json
import re

from services.gateway.openapi import merge


def _document(paths: dict[str, list[str]], schemas: dict[str, object]) -> dict[str, object]:
    def operation(path: str) -> dict[str, object]:
        return {
            "operationId": "same",
            "responses": {"200": {"schema": {"$ref": f"#/components/schemas/{paths[path][1]}"}}},
        }

    return {
        "paths": {path: {method: operation(path)} for path, (method, _) in paths.items()},
        "components": {"schemas": schemas},
    }


def test_two_things_of_one_name_stay_two_and_what_is_equal_stays_one():
    inner = {"type": "object", "properties": {"b": {"$ref": "#/components/schemas/Inner"}}}
    documents = {
        "pool": _document({"/v1/pools": ["get", "Thing"]}, {"Thing": inner, "Inner": {"type": "string"}}),
        "training": _document(
            {"/v1/runs": ["get", "Thing"], "/v1/secret": ["get", "Secret"]},
            {"Thing": {"type": "number"}, "Secret": {"type": "null"}},
        ),
        "generation": _document({"/v1/engine": ["get", "Inner"]}, {"Inner": {"type": "string"}}),
    }
    merged = merge(documents)
    text = json.dumps(merged)

    assert list(merged["paths"]) == ["/v1/engine", "/v1/pools", "/v1/runs"]
    assert set(merged["components"]["schemas"]) == {"Thing", "Inner", "training_Thing"}
    referred = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert referred == {"Thing", "Inner", "training_Thing"}
    assert "Secret" not in text
    identifiers = re.findall(r'"operationId": "(\w+)"', text)
    assert len(identifiers) == len(set(identifiers)) == 3


def test_a_path_of_another_service_is_not_taken_over():
    documents = {
        "generation": _document({"/v1/pools": ["get", "X"]}, {}),
        "pool": _document({"/v1/pools": ["get", "Y"]}, {}),
    }
    assert merge(documents)["paths"]["/v1/pools"]["get"]["tags"] == ["pool"]
