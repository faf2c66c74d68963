"""The processes of one trainer, its ranks, as `accelerate launch` starts them. A trainer alone is rank 0 of 1.

The first rank alone holds the lease, asks other services and writes files; the others do what it says at the same place of
the same step. Invariant: what is done in `first` ends for every rank in the same way, so that all go on, pause or fail together.
Limit: one machine. A rank waits for the first one as long as that lives: its waits have ends of their own, and they die together.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from services.training.failures import Failure, RunError, RunPausedError, name_failure

T = TypeVar("T")
# The watchdog of the first rank's lease ends a step that hangs; it comes first, because it names the reason.
STEP_MARGIN_S = 60.0
_AS_LONG_AS_THE_FIRST_LIVES = timedelta(days=30)
# The ranks' words to each other: a group of its own, because a step's time limit is no limit for waiting for a batch.
_words: Any = None


@dataclass(frozen=True)
class _Outcome:
    """What became of the first rank's work."""

    value: Any = None
    failure: Failure | None = None
    is_paused: bool = False


def rank() -> int:
    """Which of the trainer's processes this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """How many processes the trainer has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this one speaks for all."""
    return rank() == 0


def meet(step_timeout_s: float) -> None:
    """Wait for the other ranks; afterwards they can talk. A step in which one of them is silent for longer ends with an error."""
    global _words
    if processes() == 1:
        return
    import torch
    from torch import distributed

    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group(backend, timeout=timedelta(seconds=step_timeout_s + STEP_MARGIN_S))
    _words = distributed.new_group(backend="gloo", timeout=_AS_LONG_AS_THE_FIRST_LIVES)


def part() -> None:
    """The end of `meet`: no rank goes before the others are done."""
    if processes() > 1:
        from torch import distributed

        distributed.barrier(group=_words)
        distributed.destroy_process_group()


def first(work: Callable[[], T]) -> T:
    """Let the first rank work, and the others wait for what it returns (which is pickled) or how it fails.

    Raises: RunPausedError in all of them; in the others RunError, with the name of whatever ended the first.
    """
    if processes() == 1:
        return work()
    if not is_first():
        heard: T = _hear()
        return heard
    try:
        value = work()
    except RunPausedError:
        _say(_Outcome(is_paused=True))
        raise
    except Exception as error:
        _say(_Outcome(failure=name_failure(error)))
        raise
    _say(_Outcome(value))
    return value


def gather(value: T) -> list[T]:
    """The value of every rank, in all of them."""
    if processes() == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * processes()
    distributed.all_gather_object(values, value, group=_words)
    return values


def _say(outcome: _Outcome) -> _Outcome:
    from torch import distributed

    said: list[Any] = [outcome]
    distributed.broadcast_object_list(said, src=0, group=_words)
    heard: _Outcome = said[0]
    return heard


def _hear() -> Any:
    outcome = _say(_Outcome())
    if outcome.is_paused:
        raise RunPausedError
    if outcome.failure is not None:
        raise RunError(outcome.failure.reason, outcome.failure.sentence)
    return outcome.value
