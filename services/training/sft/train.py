"""An SFT run from snapshot to trained model."""

import hashlib
import io
import logging
from typing import Any

import fsspec
import pyarrow
import pyarrow.parquet

from services.training.failures import RunError
from services.training.loop import Attempt
from services.training.policies import load
from services.training.sft.rows import Tokenised, tokenise_rows
from services.training.sft.trainer import make_sft_trainer
from shared.contracts.runs import RunFailure
from shared.contracts.snapshots import Snapshot, SnapshotStatus
from shared.errors import HeadwaterError

log = logging.getLogger(__name__)
COLUMNS = ("question_id", "prompt", "completion", "segments")


def train_sft(attempt: Attempt) -> Any:
    """Train on the run's snapshot; returns the model. Raises: RunError `bad_snapshot`, `no_row_fits`, `bad_model`, `not_a_number`."""
    run, recipe = attempt.run, attempt.run.sft
    if recipe is None or run.snapshot_id is None:
        raise RunError(RunFailure.BAD_SNAPSHOT, "The run has no snapshot or no recipe.")
    loaded = load(attempt.start, recipe.lora, bf16=recipe.bf16, kl=recipe.kl_beta > 0, seed=run.seed)
    snapshot = read_snapshot(attempt)
    rows = tokenise_snapshot(snapshot, read_rows(snapshot), loaded.tokenizer, recipe.max_tokens)
    log.info("run %s: %d rows, left out: %s", attempt.lease.run_id, len(rows.input_ids), rows.left_out or "none")
    counts = {f"rows_{reason}": float(count) for reason, count in rows.left_out.items()}
    attempt.lease.log(0, {"rows": float(len(rows.input_ids)), **counts})
    trainer = make_sft_trainer(run, recipe, loaded, rows, attempt.store.staging)
    trainer.follow(attempt, recipe.checkpoint_every_steps)
    trainer.train_to_the_end()
    return trainer.model


def read_snapshot(attempt: Attempt) -> Snapshot:
    """The run's snapshot, which must be ready."""
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


def read_rows(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The rows of a snapshot, its content hash verified."""
    try:
        with fsspec.open(snapshot.uri, "rb") as file:
            content: bytes = file.read()
    except (OSError, ValueError) as error:
        raise _bad(snapshot, f"cannot be read ({error})") from error
    if hashlib.sha256(content).hexdigest() != snapshot.content_hash:
        raise _bad(snapshot, "does not have the recorded content hash; build it again")
    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(io.BytesIO(content), columns=list(COLUMNS)).to_pylist()
    except (pyarrow.ArrowException, KeyError) as error:
        raise _bad(snapshot, f"is not a Parquet file with the columns {', '.join(COLUMNS)} ({error})") from error
    return rows


def tokenise_snapshot(snapshot: Snapshot, rows: list[dict[str, Any]], tokenizer: Any, max_tokens: int) -> Tokenised:
    """The rows as tokens and labels; there must be some."""
    try:
        tokenised = tokenise_rows(rows, tokenizer, max_tokens)
    except ValueError as error:
        raise _bad(snapshot, f"has a broken row: {error}") from error
    if not tokenised.input_ids:
        left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(tokenised.left_out.items()))
        sentence = f"None of the {len(rows)} rows of snapshot '{snapshot.key}' can be trained on ({left_out}; max_tokens {max_tokens})."
        raise RunError(RunFailure.NO_ROW_FITS, sentence)
    return tokenised


def _bad(snapshot: Snapshot, why: str) -> RunError:
    return RunError(RunFailure.BAD_SNAPSHOT, f"Snapshot '{snapshot.key}' at {snapshot.uri} {why}.")
