"""The base of every wire type, and packed token arrays.

Token ids and log-probabilities travel as base64 of little-endian bytes (int32 / float32), never as JSON numbers.
"""

import base64
import re
import struct
from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast


class Contract(BaseModel):
    """A frozen wire type; an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def pack_int32(values: Sequence[int]) -> str:
    """Base64 of `values` as little-endian int32."""
    return base64.b64encode(struct.pack(f"<{len(values)}i", *values)).decode("ascii")


def unpack_int32(packed: str) -> list[int]:
    """Inverse of `pack_int32`."""
    data = base64.b64decode(packed)
    return list(struct.unpack(f"<{len(data) // 4}i", data))


def pack_float32(values: Sequence[float]) -> str:
    """Base64 of `values` as little-endian float32."""
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode("ascii")


def unpack_float32(packed: str) -> list[float]:
    """Inverse of `pack_float32`."""
    data = base64.b64decode(packed)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def _whole_words(packed: str) -> str:
    try:
        size_bytes = len(base64.b64decode(packed, validate=True))
    except ValueError as error:
        raise ValueError("must be base64") from error
    if size_bytes % 4:
        raise ValueError("must hold a whole number of 4-byte values")
    return packed


def _storable(text: str) -> str:
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("must not contain a NUL character or a lone surrogate")
    return text


def _teacher_key(name: str) -> str:
    if re.fullmatch(r"HEADWATER_TEACHER_KEY[A-Z0-9_]*", name) is None:
        raise ValueError("must be the name of an environment variable that begins with HEADWATER_TEACHER_KEY")
    return name


T = TypeVar("T")
# A list of a request: read up to its first wrong item, so that a million wrong ones are one error and not millions.
Items = Annotated[tuple[T, ...], FailFast()]
Text = Annotated[str, AfterValidator(_storable)]
TeacherKeyName = Annotated[str, AfterValidator(_teacher_key)]
PackedInt32 = Annotated[str, AfterValidator(_whole_words)]
PackedFloat32 = Annotated[str, AfterValidator(_whole_words)]
