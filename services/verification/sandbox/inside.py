"""What runs first in the sandbox: it gives up what it may, sets the limits, and then becomes the program. The standard library alone.

`python inside.py '{"started": fd, "held": fd, "word": …, "uid": 0, "cpu_s": 4, …}'`: as `start` writes it.
Invariant: a byte in `started` says that the program's own code is next, so that whatever ends after it is the program's doing.
"""

import json
import os
import resource
import runpy
import sys
from pathlib import Path

PROGRAM = "/run/program.py"
ASSERTIONS = "/run/assertions.py"


def main() -> None:
    """Run PROGRAM as a script, then ASSERTIONS in its names; that they held is said by writing `word` into `held`."""
    limits = json.loads(sys.argv.pop())
    held, word = limits.pop("held"), limits.pop("word").encode()
    _give_up(limits["uid"])
    _limit(limits)
    os.write(limits["started"], b"+")
    os.close(limits["started"])
    sys.argv = [PROGRAM]
    names = runpy.run_path(PROGRAM, run_name="__main__")
    exec(compile(Path(ASSERTIONS).read_text(encoding="utf-8"), ASSERTIONS, "exec"), names)  # noqa: S102 (what we are for)
    os.write(held, word)


def _give_up(uid: int) -> None:
    """Become an ordinary user; 0 where we are one already."""
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def _limit(limits: dict[str, int]) -> None:
    for name, soft, hard in (
        (resource.RLIMIT_CPU, limits["cpu_s"], limits["cpu_s"] + 1),
        (resource.RLIMIT_AS, limits["memory_bytes"], limits["memory_bytes"]),
        (resource.RLIMIT_NPROC, limits["processes"], limits["processes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"], limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, limits["files"], limits["files"]),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(name, (soft, hard))


if __name__ == "__main__":
    main()
