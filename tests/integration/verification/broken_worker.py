"""Workers whose judge does what the answer says. Run as a program by the tests, as the real one is."""

import contextlib
import os
import socket
import sys
import time

from services.verification.kinds.judgement import Judgement, scored
from services.verification.worker import fork_workers
from shared.contracts.questions import QuestionKind


def hang() -> None:
    """Never return."""
    while True:
        time.sleep(1)


def slow() -> None:
    """Half a second of work."""
    until = time.process_time() + 0.5
    while time.process_time() < until:
        pass


def fail() -> None:
    """As a checker does."""
    raise ZeroDivisionError


def swallow() -> None:
    """Run out of memory and hide it."""
    kept = []
    with contextlib.suppress(MemoryError):
        while True:
            kept.append(bytearray(1 << 24))


BEHAVIOUR = {
    "hang": hang,
    "slow": slow,
    "crash": lambda: os._exit(3),
    "raise": fail,
    "memory": lambda: bytearray(1 << 40),
    "swallow": swallow,
    "noise": lambda: print("not a reply"),  # noqa: T201
}


def judge(reference: str, answer: str) -> Judgement:
    """Do what the first word of the answer says, if anything; then compare."""
    BEHAVIOUR.get(answer.split(" ")[0], lambda: None)()
    return scored(reference == answer)


if __name__ == "__main__":
    fork_workers({QuestionKind.MATH: judge}, int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
