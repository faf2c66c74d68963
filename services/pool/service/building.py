"""Building snapshots: leased, read by the page, candidates to disk, chosen, written in pieces, made ready with their questions.

Invariant: a snapshot becomes ready in one transaction with the list of its questions, and only if none of them left the pool since
they were read. Memory: one page of groups, some bytes a row, the ids of the questions. The reading is one
transaction, as of one moment.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from services.pool.builders import parquet
from services.pool.builders.lots import Mask
from services.pool.builders.recipes import builder_of
from services.pool.builders.spool import Spool
from services.pool.hints import Hints
from services.pool.models import SnapshotRow
from services.pool.repository import questions, snapshots, sources
from services.pool.service.sources import answered_questions, scored_groups
from shared.contracts.snapshots import SnapshotIn, SnapshotRecipe, SnapshotStatus
from shared.db import Database
from shared.errors import HeadwaterError

LEASE_S = 30.0
HEARTBEAT_S = 5.0
MAX_ATTEMPTS = 5
ANSWERS_AT_ONCE = 256
GROUPS_AT_ONCE = 32  # these come with their tokens
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Result:
    """A snapshot's new values, and of which questions it has rows."""

    values: dict[str, object]
    question_ids: pa.Array | None = None


@dataclass(frozen=True)
class _Replay:
    """The file of another snapshot, and which of its rows may be mixed in."""

    uri: str
    key: str
    usable: Mask


class _QuestionsLeftError(Exception):
    """Questions were quarantined or retracted while their rows were built."""


class SnapshotBuilding:
    """The builder of one process."""

    def __init__(self, database: Database, hints: Hints, artifacts_url: str) -> None:
        self._database = database
        self._hints = hints
        self._folder = f"{artifacts_url.rstrip('/')}/snapshots"

    async def build_next(self) -> bool:
        """Build the oldest snapshot that nobody builds; False when there is none."""
        async with self._database.transaction() as session:
            row = await snapshots.lease_next(session, LEASE_S)
        if row is None:
            return False
        assert row.lease_token is not None
        if row.attempts > MAX_ATTEMPTS:
            died = f"Snapshot {row.key!r} was given up: its builder died {MAX_ATTEMPTS} times; the pool's log has the details."
            result = _Result({"status": SnapshotStatus.FAILED, "error": row.error or died})
        else:
            async with self._kept(row.id, row.lease_token):
                result = await self._result(row, row.lease_token)
        if await self._finish(row, row.lease_token, result) and "status" in result.values:
            self._hints.advance(row.campaign_id)
        return True

    async def _finish(self, row: SnapshotRow, token: UUID, result: _Result) -> bool:
        """Write the result and the snapshot's questions; False when another builder has the lease, or a question left."""
        try:
            async with self._database.transaction() as session:
                if not await snapshots.finish(session, row.id, token, result.values):
                    return False
                if result.question_ids is not None and len(result.question_ids):
                    await snapshots.put_questions(session, row.id, (str(value) for value in result.question_ids))
                    _require_all(await snapshots.count_unusable(session, row.id))
        except _QuestionsLeftError as error:
            log.info("snapshot %r is built again: %s", row.key, error)
            async with self._database.transaction() as session:
                await snapshots.give_back(session, row.id, token)
            return False
        return True

    async def _result(self, row: SnapshotRow, token: UUID) -> _Result:
        """What becomes of a snapshot that was built, cannot be built, or cannot be written now."""
        try:
            return await self._build(SnapshotIn.model_validate(row.request), row.id, token)
        except HeadwaterError as error:
            return _Result({"status": SnapshotStatus.FAILED, "error": error.message})
        except OSError as error:
            return _Result(self._unwritten(row, error))

    def _unwritten(self, row: SnapshotRow, error: OSError) -> dict[str, object]:
        """A disk or the artifact store fails: tried again when the lease is over, a few times."""
        message = f"Snapshot {row.key!r} cannot be written to {self._folder} ({error}); make room or mend the address."
        log.warning("%s (attempt %d of %d)", message, row.attempts, MAX_ATTEMPTS)
        if row.attempts < MAX_ATTEMPTS:
            return {"error": message}
        return {"status": SnapshotStatus.FAILED, "error": message}

    async def _build(self, request: SnapshotIn, snapshot_id: UUID, token: UUID) -> _Result:
        """Read, choose and write; what takes the processor runs in a thread. Raises: HeadwaterError, OSError."""
        await asyncio.to_thread(parquet.clear_drafts, self._folder, f"draft-{snapshot_id}-")
        builder = builder_of(request)
        with Spool(builder) as spool:
            await self._gather(request, spool)
            replay = await self._replay(request, builder.schema)
            draft = f"draft-{snapshot_id}-{token}"
            choice = await asyncio.to_thread(builder.choose, spool.kinds, spool.lots, _usable(replay))
            rows = chain(spool.chosen(choice.own), _replayed(replay, choice.replayed))
            written = await asyncio.to_thread(parquet.write, self._folder, draft, builder.schema, rows)
        values: dict[str, object] = {
            "status": SnapshotStatus.READY,
            "error": None,
            "uri": written.uri,
            "content_hash": written.content_hash,
            "rows": written.rows,
            "rounds": {str(rounds): count for rounds, count in sorted(written.rounds.items())},
            "dropped": {str(reason): count for reason, count in sorted(builder.dropped.items())},
        }
        return _Result(values, written.question_ids)

    async def _gather(self, request: SnapshotIn, spool: Spool) -> None:
        """Every candidate of the source orders, as of now."""
        async with self._database.transaction() as session:
            await sources.hold_still(session)
            pages: AsyncIterator[list[Any]] = (
                scored_groups(session, request.order_ids, GROUPS_AT_ONCE)
                if request.recipe is SnapshotRecipe.OFFLINE_RL
                else answered_questions(session, request.order_ids, ANSWERS_AT_ONCE)
            )
            async for page in pages:
                await asyncio.to_thread(spool.add, page)

    async def _replay(self, request: SnapshotIn, schema: pa.Schema) -> _Replay | None:
        """The rows that may be mixed in: not those of questions that left since. Raises: HeadwaterError, OSError."""
        if request.replay_snapshot_id is None:
            return None
        async with self._database.transaction() as session:
            source = await snapshots.get(session, request.replay_snapshot_id)
            left_out = {str(question_id) for question_id in await questions.unusable(session, request.campaign_id)}
        if source is None or source.status != SnapshotStatus.READY:
            what = "does not exist" if source is None else f"is {source.status}"
            name = request.replay_snapshot_id if source is None else repr(source.key)
            raise HeadwaterError("replay_not_ready", f"Snapshot {name} is to be mixed in and {what}.")
        await asyncio.to_thread(parquet.require_hash, source.uri, source.key, source.content_hash)
        await asyncio.to_thread(parquet.require_columns, source.uri, source.key, schema)
        usable = await asyncio.to_thread(_usable_rows, source.uri, source.key, left_out)
        return _Replay(source.uri, source.key, usable)

    @asynccontextmanager
    async def _kept(self, snapshot_id: UUID, token: UUID) -> AsyncIterator[None]:
        """The builder's lease, extended while the block runs."""
        heartbeat = asyncio.create_task(self._beat(snapshot_id, token))
        try:
            yield
        finally:
            heartbeat.cancel()
            with suppress(asyncio.CancelledError):
                await heartbeat

    async def _beat(self, snapshot_id: UUID, token: UUID) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            async with self._database.transaction() as session:
                await snapshots.extend(session, snapshot_id, token, LEASE_S)


def _require_all(unusable: int) -> None:
    if unusable:
        raise _QuestionsLeftError(f"{unusable} of its questions left the pool meanwhile")


def _usable(replay: _Replay | None) -> int:
    return int(replay.usable.sum()) if replay else 0


def _usable_rows(uri: str, key: str, left_out: set[str]) -> Mask:
    """For each row of a snapshot's file whether its question is still in the pool."""
    with parquet.opened(uri, key) as file:
        ids = (batch.column(0).to_pylist() for batch in parquet.batches(file, ["question_id"]))
        return np.fromiter((question_id not in left_out for page in ids for question_id in page), dtype=np.bool_)


def _replayed(replay: _Replay | None, chosen: Mask) -> Iterator[pa.RecordBatch]:
    """The rows to mix in; `chosen` is among the usable ones."""
    if replay is None or not chosen.any():
        return
    taken = replay.usable.copy()
    taken[replay.usable] = chosen
    at = 0
    with parquet.opened(replay.uri, replay.key) as file:
        for batch in parquet.batches(file):
            yield batch.filter(pa.array(taken[at : at + batch.num_rows]))
            at += batch.num_rows
