"""What a document may consist of: values are counted outside of strings, fields by object, and what is no JSON is left to its reader."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import json_shape
from shared.json_shape import MAX_FIELDS, MAX_VALUES, shape_fault

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(['",[{', "\\", '"', ",,,"])
VALUES = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=30,
)


def values(value: Any) -> int:
    """How many values and names of fields there are, at most."""
    if isinstance(value, dict):
        return 1 + sum(map(values, value.values()))
    return 1 + sum(map(values, value)) if isinstance(value, list) else 1


@given(VALUES, st.booleans())
def test_never_fewer_values_are_counted_than_there_are(value: Any, is_plain: bool):
    document = json.dumps(value, ensure_ascii=is_plain).encode()
    outside = json_shape._separators(json_shape._STRING.sub(b"", document))
    assert values(value) - 1 <= outside <= 2 * values(value)


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (b"[" + b"1," * MAX_VALUES + b"1]", "values"),
        (b"[" + b"{}," * MAX_VALUES + b"1]", "values"),
        (b"[" + b'"",' * (MAX_VALUES + 1) + b"1]", "values"),
        (b'["' + b",[{" * MAX_VALUES + b'"]', None),
        (b'["' + b'\\",' * MAX_VALUES + b'"]', None),
        (b"{" + b'"a":0,' * (MAX_FIELDS + 1) + b'"b":0}', "fields"),
        (b'[[{"c":{' + b'"a" :0,' * (MAX_FIELDS + 1) + b'"b":0}}]]', "fields"),
        (b"[" + b'{"a":0,"b":1},' * MAX_FIELDS + b"1]", None),
        (b"{" + b'"a":0,' * (MAX_FIELDS + 1), None),
        (b'{"a":' * 50_000, None),
        (b"\xff" * 10 + b":" * 2000, None),
        (b"", None),
    ],
)
def test_the_shapes(document: bytes, fault: str | None):
    found = shape_fault(document)
    assert found is None if fault is None else found is not None and fault in found, document[:20]
