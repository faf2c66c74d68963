"""Snapshots: ordered by key, built in the background under a lease, immutable once they are ready."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from uuid import UUID

import fsspec
from sqlalchemy import Row

from services.pool import identity
from services.pool.builders import distill, rows, s2r
from services.pool.builders.answers import Answer, AnsweredQuestion
from services.pool.hints import Hints
from services.pool.models import SnapshotRow
from services.pool.repository import campaigns, groups, orders, questions, snapshots
from shared.contracts.recipe import BuildRecipe, TeachRecipe
from shared.contracts.snapshots import Snapshot, SnapshotIn, SnapshotRecipe, SnapshotStatus
from shared.contracts.verdicts import ScoredSegment
from shared.db import Database
from shared.errors import ConflictError, HeadwaterError, NotFoundError

LEASE_S = 30.0
HEARTBEAT_S = 5.0
MAX_ATTEMPTS = 5
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Result:
    """A snapshot's new values, and of which questions it has rows."""

    values: dict[str, object]
    questions: Sequence[str] = ()


class _QuestionsLeftError(Exception):
    """Questions were quarantined or retracted while their rows were built."""


class Snapshots:
    """Ordering, reading and building snapshots."""

    def __init__(self, database: Database, hints: Hints, artifacts_url: str) -> None:
        self._database = database
        self._hints = hints
        self._artifacts_url = artifacts_url.rstrip("/")
        self.ordered = asyncio.Event()

    async def create(self, request: SnapshotIn) -> tuple[Snapshot, bool]:
        """The snapshot, and whether it is new. Raises: NotFoundError (campaign, order), ConflictError (other content)."""
        snapshot_id, content = identity.snapshot_id(request.campaign_id, request.key), identity.request_hash(request)
        async with self._database.transaction() as session:
            if not await campaigns.exists(session, request.campaign_id):
                raise NotFoundError("campaign", request.campaign_id)
            if await orders.get(session, request.order_id) is None:
                raise NotFoundError("order", request.order_id)
            created = await snapshots.insert_new(session, snapshot_id, content, request)
            row = await snapshots.get(session, snapshot_id)
            assert row is not None
            if row.request_hash != content:
                raise ConflictError(
                    "snapshot_exists",
                    f"Snapshot {request.key!r} exists with other content; order it under another key.",
                )
        if created:
            self.ordered.set()
        return contract(row), created

    async def get(self, snapshot_id: UUID) -> Snapshot:
        """One snapshot. Raises: NotFoundError."""
        async with self._database.transaction() as session:
            row = await snapshots.get(session, snapshot_id)
        if row is None:
            raise NotFoundError("snapshot", snapshot_id)
        return contract(row)

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
                result = await self._result(row)
        if await self._finish(row, result) and result.values.get("status") is not None:
            self._hints.advance(row.campaign_id)
        return True

    async def _finish(self, row: SnapshotRow, result: "_Result") -> bool:
        """Write the result and the snapshot's questions; False when another builder has the lease, or a question left."""
        assert row.lease_token is not None
        try:
            async with self._database.transaction() as session:
                if not await snapshots.finish(session, row.id, row.lease_token, result.values):
                    return False
                if result.questions:
                    await snapshots.put_questions(session, row.id, result.questions)
                    _require_all(await snapshots.count_unusable(session, row.id))
        except _QuestionsLeftError as error:
            log.info("snapshot %r is built again: %s", row.key, error)
            async with self._database.transaction() as session:
                await snapshots.give_back(session, row.id, row.lease_token)
            return False
        return True

    async def _result(self, row: SnapshotRow) -> "_Result":
        """What becomes of a snapshot that was built, cannot be built, or cannot be written now."""
        try:
            return await self._build(SnapshotIn.model_validate(row.request), row.id)
        except HeadwaterError as error:
            return _Result({"status": SnapshotStatus.FAILED, "error": error.message})
        except OSError as error:
            return _Result(self._unwritten(row, error))

    def _unwritten(self, row: SnapshotRow, error: OSError) -> dict[str, object]:
        """The artifact store fails: tried again when the lease is over, a few times."""
        message = (
            f"Snapshot {row.key!r} cannot be written to {self._artifacts_url} ({error}); make room or mend the address."
        )
        log.warning("%s (attempt %d of %d)", message, row.attempts, MAX_ATTEMPTS)
        if row.attempts < MAX_ATTEMPTS:
            return {"error": message}
        return {"status": SnapshotStatus.FAILED, "error": message}

    async def _build(self, request: SnapshotIn, snapshot_id: UUID) -> "_Result":
        """Read, build in a thread, write. Raises: HeadwaterError, OSError."""
        async with self._database.transaction() as session:
            responses = [row async for row in groups.trainable(session, request.order_id)]
        replay = await self._replay(request)
        data, built = await asyncio.to_thread(_render, request, responses, replay)
        content_hash = rows.content_hash(data)
        uri = f"{self._artifacts_url}/snapshots/{snapshot_id}-{content_hash[:12]}.parquet"
        await asyncio.to_thread(_write, uri, data)
        rounds: dict[str, int] = {}
        for row in built.rows:
            rounds[str(row.rounds)] = rounds.get(str(row.rounds), 0) + 1
        values: dict[str, object] = {
            "status": SnapshotStatus.READY,
            "error": None,
            "uri": uri,
            "content_hash": content_hash,
            "rows": len(built.rows),
            "rounds": rounds,
            "dropped": {str(reason): count for reason, count in built.dropped.items()},
        }
        return _Result(values, sorted({row.question_id for row in built.rows}))

    async def _replay(self, request: SnapshotIn) -> list[rows.Row]:
        """The rows of the snapshot to mix in, but those of questions that left since. Raises: HeadwaterError, OSError."""
        if request.replay_snapshot_id is None:
            return []
        source = await self.get(request.replay_snapshot_id)
        if source.status is not SnapshotStatus.READY:
            raise HeadwaterError(
                "replay_not_ready", f"Snapshot {source.key!r} is to be mixed in and is {source.status}."
            )
        data = await asyncio.to_thread(_read, source.uri)
        if rows.content_hash(data) != source.content_hash:
            raise HeadwaterError("artifact_damaged", f"The file of snapshot {source.key!r} at {source.uri} is damaged.")
        async with self._database.transaction() as session:
            left_out = {str(question_id) for question_id in await questions.unusable(session, request.campaign_id)}
        return [row for row in rows.from_parquet(data) if row.question_id not in left_out]

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


def _render(request: SnapshotIn, responses: Sequence[Row[Any]], replay: Sequence[rows.Row]) -> tuple[bytes, rows.Built]:
    answered = list(_by_question(responses))
    if request.recipe is SnapshotRecipe.DISTILL:
        built = distill.build(answered, request.teach or TeachRecipe(), request.seed)
    else:
        built = s2r.build(answered, request.build or BuildRecipe(), replay, request.seed)
    return rows.to_parquet(built.rows), built


def _by_question(responses: Sequence[Row[Any]]) -> Iterator[AnsweredQuestion]:
    """The questions of responses that are sorted by question."""
    for question_id, group in groupby(responses, key=lambda row: row.question_id):
        lines = list(group)
        answers = [
            Answer(line.text, tuple(ScoredSegment.model_validate(segment) for segment in line.segments))
            for line in lines
        ]
        first = lines[0]
        yield AnsweredQuestion(str(question_id), first.question, first.solution, first.domain, answers)


def _write(uri: str, data: bytes) -> None:
    filesystem, path = fsspec.core.url_to_fs(uri)
    filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    filesystem.pipe_file(path, data)


def _read(uri: str) -> bytes:
    filesystem, path = fsspec.core.url_to_fs(uri)
    return bytes(filesystem.cat_file(path))


def contract(row: SnapshotRow) -> Snapshot:
    """The wire form of a snapshot."""
    return Snapshot(
        id=row.id,
        campaign_id=row.campaign_id,
        key=row.key,
        recipe=SnapshotRecipe(row.request["recipe"]),
        status=SnapshotStatus(row.status),
        error=row.error,
        uri=row.uri,
        content_hash=row.content_hash,
        rows=row.rows,
        rounds={int(rounds): count for rounds, count in row.rounds.items()},
        dropped=row.dropped,
        created_at=row.created_at,
    )
