"""A run's curves in the trackers that people have, beside our own: as transformers integrates them; their own variables say where to."""

from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, get_reporting_integration_callbacks

from services.training.failures import RunError
from shared.contracts.runs import RunFailure


def tracker_callbacks(names: str, directory: Path) -> list[TrainerCallback]:
    """Those of comma-separated names. TensorBoard writes to `directory` where TENSORBOARD_LOGGING_DIR names no other.

    Raises: RunError `crashed` for a tracker that transformers does not know or that is not installed.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    try:
        callbacks = [make() for make in get_reporting_integration_callbacks(wanted)]
    except (ValueError, RuntimeError, ImportError) as error:
        sentence = (
            f"HEADWATER_TRAINING_REPORT_TO is '{names}': {error} Install it where the trainer runs, or leave it out."
        )
        raise RunError(RunFailure.CRASHED, sentence) from error
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback):
            callback.logging_dir = callback.logging_dir or str(directory)
    return callbacks
