"""Processes that end with the one that started them, however that ends."""

import ctypes
import os
import signal
import sys

from services.training.failures import EXIT_FAILED

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when `parent`, which started it, dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        sys.exit(EXIT_FAILED)
