"""Cursors: where a page ended, as an opaque text that belongs to one list and one filter.

A cursor holds the sort key of the last row, so that rows that are added, changed or left out meanwhile do not move it.
"""

import base64
import binascii
import hashlib
from typing import Annotated, Any, NamedTuple, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from shared.contracts.listing import Listing
from shared.contracts.problems import ProblemDetail
from shared.errors import HeadwaterError

MAX_POSITION = (1 << 63) - 1
Position = Annotated[int, Field(ge=0, le=MAX_POSITION)]


class Place(NamedTuple):
    """A row's place in the order in which rows came."""

    position: Position


class RatePlace(NamedTuple):
    """A row's place by pass rate, those of one rate in the order in which they came."""

    pass_rate: Annotated[float, Field(ge=0, le=1)]
    position: Position


class TimePlace(NamedTuple):
    """A row's place in time."""

    created_at: AwareDatetime
    id: UUID


class VerdictPlace(NamedTuple):
    """A verdict's place among those of an order."""

    group_id: UUID
    position: Annotated[int, Field(ge=0, lt=1 << 31)]


K = TypeVar("K", Place, RatePlace, TimePlace, VerdictPlace)


def filter_hash(listing: Listing, scope: object = None) -> str:
    """Tells one list and filter from another; `scope` is what the path names."""
    fields = listing.model_dump_json(exclude={"limit", "after"})
    return hashlib.sha256(f"{type(listing).__name__} {scope} {fields}".encode()).hexdigest()[:16]


def encode(belongs_to: str, place: tuple[Any, ...]) -> str:
    """The cursor of a place."""
    parts = TypeAdapter(tuple[Any, ...]).dump_json((belongs_to, *place))
    return base64.urlsafe_b64encode(parts).decode("ascii").rstrip("=")


def decode(cursor: str | None, belongs_to: str, kind: type[K]) -> K | None:
    """The place of a cursor; None without one.

    Raises: HeadwaterError `bad_cursor` when it is none, `other_cursor` when it is of another list or filter.
    """
    if cursor is None:
        return None
    try:
        parts = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        owner, *place = TypeAdapter(list[str | int | float]).validate_json(parts, strict=True)
    except (binascii.Error, ValidationError, ValueError) as error:
        raise _bad() from error
    if owner != belongs_to:
        raise _refuse(
            "other_cursor",
            "'after' is a cursor of another list or filter; keep every filter as it was, or leave 'after' out to begin anew.",
        )
    try:
        return TypeAdapter(kind).validate_python(place)
    except ValidationError as error:
        raise _bad() from error


def _bad() -> HeadwaterError:
    return _refuse(
        "bad_cursor",
        "'after' is no cursor; send `next` of the page before as it came, or leave 'after' out to begin anew.",
    )


def _refuse(code: str, message: str) -> HeadwaterError:
    return HeadwaterError(code, message, 422, (ProblemDetail(field="after", reason=code, message=message),))
