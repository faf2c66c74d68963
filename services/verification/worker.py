"""Worker processes: one parent imports everything once and forks them; each judges one check at a time, a JSON line in, one out.

The service may stop, go on with or kill any of them, at any moment, and another is there in milliseconds. Invariant: what a library
prints is never a reply. Limits: allocation failures are often swallowed inside computer algebra, so a check during which the address
space came near its limit and that found nothing equal is `memory`, not incorrect. The death signal of the parent is Linux's.
"""

import ctypes
import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from services.verification.kinds import math
from services.verification.kinds.judgement import Judgement, unscored
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import UnscoredReason, VerdictOutcome

Judge = Callable[[str, str], Judgement]
Judges = Mapping[QuestionKind, Judge]
POOLED: Judges = {QuestionKind.MATH: math.judge}
READY = b"\n"
PID_BYTES = 4
_PR_SET_PDEATHSIG = 1


def fork_workers(judges: Judges, memory_bytes: int, control: socket.socket) -> None:
    """Say READY; then fork a worker for every socket that comes over `control`, and answer with its process id, until the end."""
    _die_with(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which then ends its workers
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the exit codes
    os.dup2(2, 1)
    own_pid = os.getpid()
    control.sendall(READY)
    while True:
        _, sockets, _, _ = socket.recv_fds(control, 1, 1)
        if not sockets:
            return
        pid = _fork()
        if pid == 0:
            control.close()
            _die_with(own_pid)
            serve(judges, memory_bytes, socket.socket(fileno=sockets[0]))
            os._exit(0)
        os.close(sockets[0])
        control.sendall(max(pid, 0).to_bytes(PID_BYTES))


def _fork() -> int:
    """As `os.fork`; -1 while there is no memory or no process to be had, which the service answers for."""
    try:
        return os.fork()
    except OSError as error:
        logging.getLogger(__name__).error("a worker cannot be forked: %s", error)  # noqa: TRY400 (all there is to say)
        return -1


def serve(judges: Judges, memory_bytes: int, connection: socket.socket) -> None:
    """Answer checks until the connection ends, or memory came near its limit."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    with connection.makefile("rb") as checks:
        for line in checks:
            check = json.loads(line)
            judgement = _judge(judges[QuestionKind(check["kind"])], check["reference"], check["answer"])
            strained = _peak_bytes() > memory_bytes // 2
            if strained and judgement.outcome is VerdictOutcome.INCORRECT:
                judgement = unscored(UnscoredReason.MEMORY)
            reply = {"outcome": judgement.outcome, "reason": judgement.reason, "leaving": strained}
            connection.sendall(json.dumps(reply).encode() + b"\n")
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
    """`python -m services.verification.worker MEMORY_BYTES CONTROL_FD`."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of the timeouts that we leave to the parent
    math.warm_up()
    fork_workers(POOLED, int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))


if __name__ == "__main__":
    main()
