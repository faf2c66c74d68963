"""API keys: how they look, how they are made, who holds a valid one.

Invariant: a key is shown once and never stored; what is stored and compared is its sha256, which for 32 random bytes
needs no salt. A revoked key is refused after CACHE_S at the latest.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

from sqlalchemy.exc import DBAPIError

from services.gateway.repository import KeyRepository
from shared.db import Database
from shared.errors import HeadwaterError, UnavailableError

PREFIX = "hw_"
SECRET_BYTES = 32
ALL_SCOPES = ("read", "submit", "train", "admin")
CACHE_S = 3.0
_BEARER = "bearer "


def new_key() -> str:
    """A key that nobody can guess."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def hash_key(key: str) -> bytes:
    """sha256 of a key."""
    return hashlib.sha256(key.encode()).digest()


async def make_key(repository: KeyRepository, name: str) -> str:
    """Store a new key with every scope and return it, the only time it can be seen."""
    key = new_key()
    await repository.insert(uuid4(), name, hash_key(key), ALL_SCOPES)
    return key


@dataclass(frozen=True)
class KeyHolder:
    """Who is asking."""

    key_id: UUID
    name: str
    scopes: tuple[str, ...]


class KeyCheck:
    """Tells valid keys from others. Valid ones are remembered for CACHE_S; wrong ones never."""

    def __init__(self, database: Database, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock_s = clock_s
        self._known: dict[bytes, tuple[float, KeyHolder]] = {}

    async def holder(self, authorization: str | None) -> KeyHolder:
        """Who holds the key of this Authorization header.

        Raises: HeadwaterError 401 without a valid key; UnavailableError when the database does not answer.
        """
        given = authorization or ""
        if given[: len(_BEARER)].lower() != _BEARER:
            raise _unauthorized("An API key is missing: send the header 'Authorization: Bearer hw_…'.")
        key = given[len(_BEARER) :].strip()
        if not key.startswith(PREFIX):
            raise _unauthorized("That is not an API key: keys begin with 'hw_'.")
        return await self._lookup(hash_key(key))

    async def _lookup(self, sha256: bytes) -> KeyHolder:
        now_s = self._clock_s()
        expires_s, holder = self._known.get(sha256, (0.0, None))
        if holder is not None and now_s < expires_s:
            return holder
        self._known.pop(sha256, None)
        try:
            async with self._database.transaction() as session:
                row = await KeyRepository(session).valid(sha256)
        except (DBAPIError, OSError) as error:
            raise UnavailableError(
                "database_unavailable",
                "The API key cannot be checked, the database does not answer; repeat the request.",
            ) from error
        if row is None or not hmac.compare_digest(row.sha256, sha256):
            raise _unauthorized("This API key is not known or was revoked.")
        holder = KeyHolder(row.id, row.name, tuple(row.scopes))
        self._known[sha256] = (now_s + CACHE_S, holder)
        return holder


def _unauthorized(message: str) -> HeadwaterError:
    return HeadwaterError("unauthorized", message, 401)
