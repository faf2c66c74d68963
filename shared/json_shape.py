"""What a JSON document may consist of, judged before it is read: a few bytes must not become gigabytes of values or of errors.

Who reads a document makes an object of each value (20 times its bytes) and, where a model refuses it, an error of each unknown field
(200 times). Lists need no bound of their own here: contracts read them up to the first wrong item (`shared.contracts.base.Items`).
"""

import json
import re
from typing import Any

MAX_VALUES = 500_000
MAX_FIELDS = 1000
_MAX_QUOTES = 8 * MAX_VALUES
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


class _ManyFieldsError(Exception):
    """An object has too many."""


def shape_fault(document: bytes | bytearray) -> str | None:
    """What is too much about a document, None when nothing is. Whether it is JSON is left to its reader."""
    if _has_many_values(document):
        return f"has more than {MAX_VALUES:,} values"
    if document.count(b":") > MAX_FIELDS:
        try:
            json.loads(document, object_pairs_hook=_count_fields)
        except _ManyFieldsError:
            return f"has an object of more than {MAX_FIELDS:,} fields"
        except (ValueError, RecursionError):
            return None
    return None


def _has_many_values(document: bytes | bytearray) -> bool:
    """A value is the first of its list or object, or stands behind a comma; so does the name of a field."""
    if _separators(document) <= MAX_VALUES:
        return False
    quotes = document.count(b'"')
    return not 0 < quotes <= _MAX_QUOTES or _separators(_STRING.sub(b"", document)) > MAX_VALUES


def _separators(document: bytes | bytearray) -> int:
    return sum(map(document.count, (b",", b"[", b"{")))


def _count_fields(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > MAX_FIELDS:
        raise _ManyFieldsError
