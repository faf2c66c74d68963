"""What a file of questions is, as the command line and the pool both read it: one JSON array, or lines."""

import json


def is_array(first_line: bytes, *, is_alone: bool) -> bool:
    """Whether a file is one JSON array, by its first line that is not blank and whether that is the only one.

    A line that is a whole JSON value is an item of NDJSON, unless no other follows.
    """
    return first_line.startswith(b"[") and (is_alone or not _is_json(first_line))


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
