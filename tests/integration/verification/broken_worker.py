"""A worker whose judge does what the answer says. Run as a program by the tests, with the memory limit as its argument."""

import os
import sys
import time

from services.verification.kinds.judgement import Judgement, scored
from services.verification.worker import serve
from shared.contracts.questions import QuestionKind


def judge(reference: str, answer: str) -> Judgement:
    """`hang`, `crash`, `raise`, `memory`, `swallow` and `noise` do that; anything else is compared."""
    if answer.startswith("hang"):
        while True:
            time.sleep(1)
    if answer == "crash":
        os._exit(3)
    if answer == "raise":
        raise ZeroDivisionError
    if answer == "memory":
        bytearray(1 << 40)
    if answer == "swallow":
        kept = []
        try:
            while True:
                kept.append(bytearray(1 << 24))
        except MemoryError:
            return scored(False)
    if answer == "noise":
        print("not a reply")  # noqa: T201
    return scored(reference == answer)


if __name__ == "__main__":
    serve({QuestionKind.MATH: judge}, int(sys.argv[1]))
