"""Exceptions and exit codes to named reasons."""

import errno
from pathlib import Path

import pytest

from services.training.failures import EXIT_FAILED, Failure, RunError, judge_exit, name_failure
from shared.contracts.runs import RunFailure


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RunError(RunFailure.BAD_MODEL, "It has no weights."), RunFailure.BAD_MODEL),
        (MemoryError(), RunFailure.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 GB"), RunFailure.OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate"), RunFailure.OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, "No space left on device"), RunFailure.DISK_FULL),
        (RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/0"), RunFailure.DISK_FULL),
        (OSError(errno.ENOENT, "No such file"), RunFailure.CRASHED),
        (ValueError("two\nlines"), RunFailure.CRASHED),
    ],
)
def test_exceptions_are_named(error: Exception, reason: RunFailure) -> None:
    failure = name_failure(error)
    assert failure.reason is reason
    assert failure.sentence.endswith(".")
    assert "\n" not in failure.sentence


def test_a_reason_survives_the_way_to_the_worker(tmp_path: Path) -> None:
    left = Failure(RunFailure.NO_PROGRESS, "Nobody samples.")
    left.write(tmp_path / "result.json")
    assert judge_exit(EXIT_FAILED, Failure.read(tmp_path / "result.json")) == left
    Failure(RunFailure.CRASHED, "Another process was gone.").write(tmp_path / "result.json")
    assert Failure.read(tmp_path / "result.json") == left


@pytest.mark.parametrize("content", [None, "", "{}", '{"reason": "bored", "sentence": ""}', "[1]"])
def test_an_unreadable_result_is_no_reason(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    assert Failure.read(path) is None
    assert judge_exit(EXIT_FAILED, None).reason is RunFailure.CRASHED
    assert "signal 11" in judge_exit(-11, None).sentence
