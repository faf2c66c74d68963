"""A submitted campaign, read and judged: JSON, or TOML whose top level is the recipe plus a `name`.

Every wrong key is named by its dotted path, with the nearest key that exists.
"""

import difflib
import json
import tomllib
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from shared.contracts.campaigns import CampaignIn
from shared.contracts.problems import ProblemDetail
from shared.errors import HeadwaterError

MAX_BODY_BYTES = 1 << 17
MAX_DETAILS = 100
MAX_DOTS = 100  # in a line of TOML: the time to read a dotted key grows with the square of its parts
JSON_TYPE, TOML_TYPE = "application/json", "application/toml"


def parse(body: bytes, media_type: str) -> CampaignIn:
    """The campaign in a request's body. Raises: HeadwaterError with 413, 415 or 422."""
    if len(body) > MAX_BODY_BYTES:
        raise HeadwaterError(
            "too_large", f"A campaign has at most {MAX_BODY_BYTES:,} bytes; this one has {len(body):,}.", 413
        )
    if media_type not in (JSON_TYPE, TOML_TYPE):
        raise HeadwaterError(
            "unknown_media_type", f"A campaign is {JSON_TYPE} or {TOML_TYPE}, not '{media_type}'.", 415
        )
    text = _text(body)
    data = _from_toml(text) if media_type == TOML_TYPE else _from_json(text)
    if _holds_nul(data):
        raise _invalid("The campaign holds a NUL character; remove it.")
    try:
        return CampaignIn.model_validate(data)
    except ValidationError as error:
        details = tuple(_detail(dict(item), toml=media_type == TOML_TYPE) for item in error.errors()[:MAX_DETAILS])
        raise _invalid(f"The campaign is not valid: {details[0].message}", details) from error


def _holds_nul(data: object) -> bool:
    """Whether any text in it does, however deep."""
    waiting = [data]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str) and "\x00" in node:
            return True
        if isinstance(node, dict):
            waiting.extend((*node, *node.values()))
        elif isinstance(node, list):
            waiting.extend(node)
    return False


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid(f"The campaign is not UTF-8: byte {error.start} cannot be read.") from error


def _from_toml(text: str) -> dict[str, Any]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > MAX_DOTS:
            raise _invalid(f"The campaign has more than {MAX_DOTS} dots in line {number}; no key has so many parts.")
    try:
        recipe = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"The campaign is not TOML: {error}.") from error
    name = {"name": recipe.pop("name")} if "name" in recipe else {}
    return {**name, "recipe": recipe}


def _from_json(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"The campaign is not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise _invalid("The campaign is not a JSON object with 'name' and 'recipe'.")
    return data


def _invalid(message: str, details: Iterable[ProblemDetail] = ()) -> HeadwaterError:
    return HeadwaterError("invalid_campaign", message, 422, tuple(details))


def _detail(error: dict[str, Any], *, toml: bool) -> ProblemDetail:
    path = [str(part) for part in error["loc"]]
    shown = path[1:] if toml and path[0] == "recipe" else path
    key = ".".join(shown)
    if error["type"] == "extra_forbidden":
        return ProblemDetail(field=key, reason="unknown_key", message=_unknown_key(path, shown))
    reason = error["msg"].removeprefix("Value error, ")
    sentence = f"'{key}' is missing" if error["type"] == "missing" else f"'{key}': {reason}" if key else reason
    return ProblemDetail(field=key or None, reason=error["type"], message=f"{sentence}.")


def _unknown_key(path: list[str], shown: list[str]) -> str:
    table, key = _table(path[:-1]), path[-1]
    near = difflib.get_close_matches(key, table, n=1)
    prefix = "".join(f"{part}." for part in shown[:-1])
    hint = f"did you mean '{prefix}{near[0]}'?" if near else f"the keys there are {', '.join(table)}."
    return f"Unknown key '{'.'.join(shown)}'; {hint}"


def _table(path: list[str]) -> list[str]:
    """The keys that exist in the table at this path."""
    model: type[BaseModel] = CampaignIn
    for part in path:
        field = model.model_fields.get(part)
        candidates = (field.annotation, *get_args(field.annotation)) if field else ()
        nested = [item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)
