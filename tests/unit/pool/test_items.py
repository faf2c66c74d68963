"""One item: a refusal names the field in a form that every report can carry, whatever was sent."""

import json

import pytest

from services.pool.service.items import read
from services.pool.service.lines import Item
from shared.contracts.questions import Refusal


@pytest.mark.parametrize(
    "value",
    [
        {"question": "1", "answer": "1", "\ud800": 1},
        {"question": "1", "answer": "1", "\0": 1},
        {"question": "1", "answer": "1", "x" * 100_000: 1},
        {"question": "1", "answer": "1", "x" * 100_000 + "\0": 1},
        {"question": "1", "kind": "\ud800" * 100_000},
        {"question": "1", "kind": ["x" * 100_000]},
        {"question": "\ud800", "answer": "1"},
        {"question": "1", "answer": "1", "kind": "\ud800"},
    ],
)
def test_a_refusal_is_small_and_can_be_written(value: dict[str, object]) -> None:
    refusal = read(Item(1, json.dumps(value).encode()))
    assert isinstance(refusal, Refusal)
    assert len(refusal.model_dump_json().encode()) < 1000
