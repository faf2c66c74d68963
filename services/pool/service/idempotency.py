"""One request at a time under an `Idempotency-Key`; whoever comes meanwhile waits for its answer.

Invariant: while a claim is kept up, no other request is carried out under its key, in whatever process. A claim ends with its
request. Limits: that of a process that died ends after `CLAIMED_FOR`; a process that stands still for longer than that loses its claim,
and of two requests that were then carried out the answer of the first is kept.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import anyio
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from services.pool.models import IdempotencyKeyRow
from services.pool.repository import idempotency
from shared.db import Database
from shared.errors import ConflictError

CLAIMED_FOR = timedelta(seconds=15)
EXTEND_EVERY_S = 4.0
WAIT_S = 20.0  # longer than a claim, so that a repeated request outlasts the process that died of the first
FIRST_POLL_S, MAX_POLL_S = 0.02, 0.5
AWAY = (DBAPIError, PoolTimeoutError, OSError)
log = logging.getLogger(__name__)


class Claim:
    """The right to be carried out under a key."""

    def __init__(self, database: Database, key: str) -> None:
        self._database = database
        self._key = key
        self._token = uuid4()
        self._is_given_up = False

    async def attempt(self) -> IdempotencyKeyRow | bool:
        """The answer that is kept already, else whether the key is claimed now."""
        async with self._database.transaction() as session:
            is_claimed = await idempotency.claim(session, self._key, self._token, CLAIMED_FOR)
            # Read behind the claim, which waits for a claim that is just being given up for an answer.
            known = await idempotency.get(session, self._key)
            if known is not None and is_claimed:
                await idempotency.release(session, self._key, self._token)
        return is_claimed if known is None else known

    async def keep(self, request_hash: bytes, status: int, content_type: str, body: bytes) -> IdempotencyKeyRow | None:
        """Keep the answer and give the claim up; returns the other answer that is kept when the claim was lost to it."""
        async with self._database.transaction() as session:
            is_first = await idempotency.keep(session, self._key, request_hash, status, content_type, body)
            await idempotency.release(session, self._key, self._token)
            known = None if is_first else await idempotency.get(session, self._key)
        self._is_given_up = True
        return known

    async def _extend(self) -> None:
        while True:
            await asyncio.sleep(EXTEND_EVERY_S)
            try:
                async with self._database.transaction() as session:
                    is_held = await idempotency.extend(session, self._key, self._token, CLAIMED_FOR)
            except AWAY as error:
                log.warning("the claim on an Idempotency-Key is not extended: %s", error)
            else:
                if not is_held:
                    log.warning("the claim on an Idempotency-Key was lost while its request was carried out")
                    return

    async def _release(self) -> None:
        try:
            async with self._database.transaction() as session:
                await idempotency.release(session, self._key, self._token)
        except AWAY as error:
            log.warning("the claim on an Idempotency-Key is not given up and runs out by itself: %s", error)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keep the claim up as long as the block lasts, then give it up."""
        extending = asyncio.create_task(self._extend())
        try:
            yield
        finally:
            extending.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([extending])
                if not self._is_given_up:
                    await self._release()


async def turn(database: Database, key: str) -> Claim | IdempotencyKeyRow:
    """The key's answer or, when there is none, its claim; waits while another request has it.

    Raises: ConflictError `idempotency_key_in_use` after `WAIT_S`.
    """
    claim = Claim(database, key)
    until, poll_s = time.monotonic() + WAIT_S, FIRST_POLL_S
    while True:
        outcome = await claim.attempt()
        if isinstance(outcome, IdempotencyKeyRow):
            return outcome
        if outcome:
            return claim
        if time.monotonic() > until:
            message = (
                "Another request under this Idempotency-Key is being carried out and not answered yet; nothing of this one is. "
                "Repeat it later, or send it under a key of its own."
            )
            raise ConflictError("idempotency_key_in_use", message)
        await asyncio.sleep(poll_s)
        poll_s = min(2 * poll_s, MAX_POLL_S)
