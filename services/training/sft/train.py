"""An SFT run from snapshot to trained model."""

import logging
from typing import Any

from services.training import ranks
from services.training.failures import RunError
from services.training.loop import Attempt
from services.training.policies import load
from services.training.sft.rows import Tokenised, tokenise_rows
from services.training.sft.trainer import make_sft_trainer
from services.training.snapshots import bad_snapshot, read_snapshot, read_table
from shared.contracts.runs import RunFailure
from shared.contracts.snapshots import Snapshot

log = logging.getLogger(__name__)
COLUMNS = ("question_id", "prompt", "completion", "segments")


def train_sft(attempt: Attempt) -> Any:
    """Train on the run's snapshot; returns the model. Raises: RunError `bad_snapshot`, `no_row_fits`, `bad_model`, `not_a_number`."""
    run, recipe = attempt.run, attempt.run.sft
    if recipe is None or run.snapshot_id is None:
        raise RunError(RunFailure.BAD_SNAPSHOT, "The run has no snapshot or no recipe.")
    loaded = load(attempt.start, recipe.lora, bf16=recipe.bf16, kl=recipe.kl_beta > 0, seed=run.seed)
    snapshot = ranks.first(lambda: read_snapshot(attempt))
    rows = tokenise_snapshot(snapshot, read_table(snapshot, COLUMNS).to_pylist(), loaded.tokenizer, recipe.max_tokens)
    log.info("run %s: %d rows, left out: %s", attempt.lease.run_id, len(rows.input_ids), rows.left_out or "none")
    counts = {f"rows_{reason}": float(count) for reason, count in rows.left_out.items()}
    attempt.lease.log(0, {"rows": float(len(rows.input_ids)), **counts})
    trainer = make_sft_trainer(run, recipe, loaded, rows, attempt.store.staging)
    trainer.follow(attempt, recipe.checkpoint_every_steps)
    trainer.train_to_the_end()
    return trainer.model


def tokenise_snapshot(snapshot: Snapshot, rows: list[dict[str, Any]], tokenizer: Any, max_tokens: int) -> Tokenised:
    """The rows as tokens and labels; there must be some."""
    try:
        tokenised = tokenise_rows(rows, tokenizer, max_tokens)
    except ValueError as error:
        raise bad_snapshot(snapshot, f"has a broken row: {error}") from error
    if not tokenised.input_ids:
        left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(tokenised.left_out.items()))
        sentence = f"None of the {len(rows)} rows of snapshot '{snapshot.key}' can be trained on ({left_out}; max_tokens {max_tokens})."
        raise RunError(RunFailure.NO_ROW_FITS, sentence)
    return tokenised
