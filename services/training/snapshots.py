"""The run's snapshot: where it is, and its rows, once their content hash is verified."""

import hashlib
import io
from collections.abc import Sequence

import fsspec
import pyarrow
import pyarrow.parquet

from services.training.failures import RunError
from services.training.loop import Attempt
from shared.contracts.runs import RunFailure
from shared.contracts.snapshots import Snapshot, SnapshotStatus
from shared.errors import HeadwaterError


def read_snapshot(attempt: Attempt) -> Snapshot:
    """The run's snapshot, which must be ready. Raises: RunError `bad_snapshot`."""
    snapshot_id = attempt.run.snapshot_id
    if snapshot_id is None:
        raise RunError(RunFailure.BAD_SNAPSHOT, "The run names no snapshot.")
    try:
        snapshot = attempt.lease.wait(attempt.lease.peers.snapshot(snapshot_id))
    except HeadwaterError as error:
        if error.status != 404:
            raise
        raise RunError(RunFailure.BAD_SNAPSHOT, f"There is no snapshot {snapshot_id}.") from error
    if snapshot.status is not SnapshotStatus.READY:
        raise RunError(RunFailure.BAD_SNAPSHOT, f"Snapshot '{snapshot.key}' is {snapshot.status}, not ready.")
    return snapshot


def read_table(snapshot: Snapshot, columns: Sequence[str]) -> pyarrow.Table:
    """These columns of a snapshot, its content hash verified. Raises: RunError `bad_snapshot`."""
    try:
        with fsspec.open(snapshot.uri, "rb") as file:
            content: bytes = file.read()
    except (OSError, ValueError) as error:
        raise bad_snapshot(snapshot, f"cannot be read ({error})") from error
    if hashlib.sha256(content).hexdigest() != snapshot.content_hash:
        raise bad_snapshot(snapshot, "does not have the recorded content hash; build it again")
    try:
        return pyarrow.parquet.read_table(io.BytesIO(content), columns=list(columns)).select(list(columns))
    except (pyarrow.ArrowException, KeyError) as error:
        raise bad_snapshot(
            snapshot, f"is not a Parquet file with the columns {', '.join(columns)} ({error})"
        ) from error


def bad_snapshot(snapshot: Snapshot, why: str) -> RunError:
    """A failure that names the snapshot."""
    return RunError(RunFailure.BAD_SNAPSHOT, f"Snapshot '{snapshot.key}' at {snapshot.uri} {why}.")
