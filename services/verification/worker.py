"""A worker process: imports once, judges one check at a time, one JSON line in, one out. Its parent kills it when late.

Invariant: whatever it writes to standard output itself is a reply; output of libraries goes to standard error.
Limit: allocation failures are often swallowed inside computer algebra, so a check during which the address space came near
its limit and that found nothing equal is `memory`, not incorrect. The death signal of the parent is Linux's.
"""

import ctypes
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from services.verification.kinds import math
from services.verification.kinds.judgement import Judgement, unscored
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import UnscoredReason, VerdictOutcome

Judge = Callable[[str, str], Judgement]
POOLED: dict[QuestionKind, Judge] = {QuestionKind.MATH: math.judge}
_PR_SET_PDEATHSIG = 1


def serve(judges: dict[QuestionKind, Judge], memory_bytes: int) -> None:
    """Answer checks until standard input ends. The first line out says that the worker is ready."""
    _die_with(os.getppid())
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    print("{}", file=replies, flush=True)
    for line in sys.stdin.buffer:
        check = json.loads(line)
        judgement = _judge(judges[QuestionKind(check["kind"])], check["reference"], check["answer"])
        strained = _peak_bytes() > memory_bytes // 2
        if strained and judgement.outcome is VerdictOutcome.INCORRECT:
            judgement = unscored(UnscoredReason.MEMORY)
        reply = {"outcome": judgement.outcome, "reason": judgement.reason, "leaving": strained}
        print(json.dumps(reply), file=replies, flush=True)
        if strained:
            return


def _judge(judge: Judge, reference: str, answer: str) -> Judgement:
    try:
        return judge(reference, answer)
    except MemoryError:
        return unscored(UnscoredReason.MEMORY)
    except Exception:  # the one boundary where any failure of a checker becomes data
        logging.getLogger(__name__).warning("the check of %.200r failed", answer, exc_info=True)
        return unscored(UnscoredReason.VERIFIER_CRASHED)


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmPeak:"):
            return int(line.split()[1]) * 1024
    return 0


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """`python -m services.verification.worker MEMORY_BYTES`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which then ends its workers
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of the timeouts that we leave to the parent
    math.judge(r"\frac{1}{2}", "0.5x")  # the imports and the grammar, before the first check's clock runs
    serve(POOLED, int(sys.argv[1]))


if __name__ == "__main__":
    main()
