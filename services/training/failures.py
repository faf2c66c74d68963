"""Named failures of a run, and how a trainer tells its worker: one exception, a result file, four exit codes.

A trainer that fails for a reason it can name writes `Failure` to its result file and exits with EXIT_FAILED. One that
lost its lease writes nothing and exits with EXIT_LOST, one whose step never ends with EXIT_HUNG. Anything else (a signal,
a traceback) is judged by the worker.
"""

import contextlib
import errno
import json
from dataclasses import dataclass
from pathlib import Path

from shared.contracts.runs import RunFailure

EXIT_FAILED, EXIT_LOST, EXIT_HUNG = 70, 75, 76

# Tried again from the checkpoint, a few times and with a growing delay; every other failure would only repeat itself.
RETRIED = frozenset({RunFailure.CRASHED, RunFailure.DISK_FULL, RunFailure.BATCH_LOST})


class RunError(Exception):
    """A failure of the run itself; `sentence` names what happened, the cause and the way out."""

    def __init__(self, failure: RunFailure, sentence: str) -> None:
        super().__init__(sentence)
        self.failure = failure
        self.sentence = sentence


class RunPausedError(Exception):
    """Somebody asked for a pause: no failure, the trainer writes a checkpoint and ends."""


@dataclass(frozen=True)
class Failure:
    """What a run's row says about its end."""

    reason: RunFailure
    sentence: str

    def write(self, path: Path) -> None:
        """Leave it for the worker, unless another process of the trainer left its own: the first to fail is why the rest did."""
        with contextlib.suppress(FileExistsError), path.open("x") as file:
            json.dump({"reason": self.reason, "sentence": self.sentence}, file)

    @staticmethod
    def read(path: Path) -> "Failure | None":
        """What the trainer left, or None when it left nothing that can be read."""
        try:
            content = json.loads(path.read_text())
            return Failure(RunFailure(content["reason"]), str(content["sentence"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def name_failure(error: BaseException) -> Failure:
    """The named reason of an exception that ended a trainer."""
    if isinstance(error, RunError):
        return Failure(error.failure, error.sentence)
    text = f"{type(error).__name__}: {error}".strip()
    if _is_out_of_memory(error, text):
        return Failure(
            RunFailure.OUT_OF_MEMORY,
            f"The trainer ran out of memory ({_first_line(text)}). Lower micro_batch_size or max_tokens in the recipe.",
        )
    if _is_disk_full(error, text):
        return Failure(
            RunFailure.DISK_FULL,
            f"The disk is full ({_first_line(text)}). Free some space; the run goes on from its last checkpoint.",
        )
    return Failure(RunFailure.CRASHED, f"The trainer crashed: {_first_line(text)}. Its log has the traceback.")


def is_retried(exit_code: int, failure: Failure) -> bool:
    """Whether the next attempt may end otherwise; a trainer that hung may not hang again."""
    return exit_code == EXIT_HUNG or failure.reason in RETRIED


def judge_exit(exit_code: int, left: Failure | None) -> Failure:
    """The named reason of a trainer that ended with `exit_code` (not 0, not EXIT_LOST); negative is a signal."""
    if exit_code == EXIT_FAILED and left is not None:
        return left
    if exit_code == EXIT_HUNG:
        return Failure(
            RunFailure.NO_PROGRESS,
            "The trainer hung: one micro-batch took longer than HEADWATER_TRAINING_STEP_TIMEOUT_S. Its log says where it "
            "stood; lower micro_batch_size, or raise that setting, when the machine is only slow.",
        )
    if exit_code == -9:
        return Failure(
            RunFailure.CRASHED,
            "The trainer was killed (signal 9), as the kernel does when memory runs out: end what else takes memory, "
            "or create a campaign with a lower micro_batch_size.",
        )
    how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    return Failure(RunFailure.CRASHED, f"The trainer ended by {how} and left no reason; its log may say why.")


def give_up(last: Failure, attempts: int) -> Failure:
    """The final reason after `attempts` attempts in a row that reached no new checkpoint."""
    reason = RunFailure.TOO_MANY_ATTEMPTS if last.reason is RunFailure.CRASHED else last.reason
    return Failure(reason, f"{attempts} attempts in a row reached no new checkpoint. The last one: {last.sentence}")


def _first_line(text: str) -> str:
    return text.splitlines()[0][:300].rstrip(".") if text else "no message"


def _is_out_of_memory(error: BaseException, text: str) -> bool:
    lowered = text.lower()
    return isinstance(error, MemoryError) or "out of memory" in lowered or "can't allocate memory" in lowered


def _is_disk_full(error: BaseException, text: str) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "no space left on device" in text.lower() or "pytorchstreamwriter failed" in text.lower()
