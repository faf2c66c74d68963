"""Programs in the real sandbox: what is right, what is wrong, and what becomes of those that do harm."""

import asyncio
import json
import textwrap
import time

import psutil
import pytest

from services.verification.cache import Cache
from services.verification.kinds.code import Code
from services.verification.kinds.judgement import Check
from services.verification.sandbox import start
from services.verification.sandbox.start import Sandbox
from services.verification.service import Verifier
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import UnscoredReason, VerdictBatch, VerdictOutcome, VerdictRequest

pytestmark = pytest.mark.integration
ADD = json.dumps({"tests": [{"input": "2 3\n", "output": "5\n"}, {"input": "10 -4", "output": "6"}], "time_limit_s": 1})
SQUARE = json.dumps({"assertions": ["assert square(3) == 9", "assert square(-2) == 4"]})
SILENT = json.dumps({"tests": [{"input": "", "output": ""}], "time_limit_s": 1})
RIGHT, WRONG = VerdictOutcome.CORRECT, VerdictOutcome.INCORRECT


def code(deadline_s: float = 30.0) -> Code:
    return Code(Sandbox(256 << 20), 2, deadline_s)


async def outcome(program: str, reference: str) -> VerdictOutcome:
    judgement = await code().judge(Check(QuestionKind.CODE, reference, textwrap.dedent(program)))
    assert judgement.reason is None
    assert judgement.milliseconds > 0
    return judgement.outcome


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("a, b = map(int, input().split()); print(a + b)", RIGHT),
        ("import sys; print(sum(map(int, sys.stdin.read().split())), '  ')", RIGHT),
        ("a, b = map(int, input().split()); print(a - b)", WRONG),
        ("print(5)", WRONG),
        ("a, b = map(int, input().split()); print(a + b); raise SystemExit(3)", WRONG),
        ("a, b = map(int, input().split()); print(a + b); print('done')", WRONG),
        ("this is no Python", WRONG),
        ("", WRONG),
        ("while True: pass", WRONG),
        ("x = [0] * 10**9", WRONG),
        ("while True: print('x' * 10000)", WRONG),
    ],
)
async def test_programs_by_their_output(program: str, expected: VerdictOutcome):
    assert await outcome(program, ADD) is expected


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("def square(x): return x * x", RIGHT),
        ("square = lambda x: x ** 2\nif __name__ == '__main__': print(square(4))", RIGHT),
        ("def square(x): return 9", WRONG),
        ("def cube(x): return x ** 3", WRONG),
        ("import sys; sys.exit(0)", WRONG),
        ("import os; os._exit(0)", WRONG),
        ("def square(x):\n    import os\n    os._exit(0)", WRONG),
        ("def square(x):\n    raise SystemExit(0)", WRONG),
    ],
)
async def test_programs_by_assertions(program: str, expected: VerdictOutcome):
    assert await outcome(program, SQUARE) is expected


HARMLESS = {
    "reads the passwords": """
        try:
            open('/etc/passwd').read(); print('read')
        except OSError: pass
        """,
    "looks at the files of the service": """
        import os
        for path in ('/root', '/home', '/work', '/proc', '/sys', '/var', '/app'):
            try:
                if os.listdir(path): print(path)
            except OSError: pass
        """,
    "sees the environment of the service": """
        import os
        if any('HEADWATER' in name or 'TOKEN' in name for name in os.environ): print(os.environ)
        """,
    "opens sockets": """
        import socket
        for address in (('127.0.0.1', 8403), ('127.0.0.1', 6379), ('10.0.0.1', 80)):
            try:
                socket.create_connection(address, 0.5); print(address)
            except OSError: pass
        """,
    "forks": """
        import os, time
        children = 0
        try:
            while True:
                if os.fork() == 0:
                    time.sleep(60); os._exit(0)
                children += 1
        except OSError: pass
        if children >= 16: print(children)
        """,
    "fills the disk": """
        written = 0
        for folder in ('/', '/tmp', '/dev/shm', '/run', '/usr'):
            try:
                for number in range(100):
                    open(f'{folder}/{number}', 'wb').write(b'0' * (1 << 20)); written += 1
            except OSError: pass
        if written > 40: print(written)
        """,
    "is root": """
        import os
        if os.getuid() == 0: print('root')
        try:
            os.setuid(0); print('root')
        except OSError: pass
        """,
    "makes namespaces": """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        for flags in (0x10000000, 0x00020000, 0x40000000):
            if libc.unshare(flags) == 0: print('unshare', hex(flags))
        """,
    "keeps memory that no limit counts": """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.shmget(0, 1 << 20, 0o1600) != -1: print('shmget')
        if libc.msgget(0, 0o1600) != -1: print('msgget')
        try:
            os.memfd_create('x'); print('memfd')
        except OSError: pass
        """,
    "kills everybody": """
        import os, signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for pid in (1, -1):
            try: os.kill(pid, signal.SIGTERM)
            except OSError: pass
        """,
    "raises its limits": """
        import resource
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (100, 100)); print('more')
        except (OSError, ValueError): pass
        """,
    "finds an open file of the service": """
        import os
        for number in range(3, 64):
            try:
                os.fstat(number)
                if os.pread(number, 100, 0): print(number)
            except OSError: pass
        """,
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_a_program_cannot_do(name: str):
    """Each prints something only if it could."""
    assert await outcome(HARMLESS[name], SILENT) is RIGHT


async def test_one_that_sleeps_is_a_timeout_and_leaves_nobody_behind(monkeypatch: pytest.MonkeyPatch):
    judge = code(deadline_s=1.5)
    sleeper = "import os, time\nif os.fork() == 0: os.setsid()\ntime.sleep(600.25)"
    judgement = await judge.judge(Check(QuestionKind.CODE, SILENT, sleeper))
    assert judgement.reason is UnscoredReason.TIMEOUT
    await _nobody_left()


async def test_a_caller_that_leaves_takes_the_program_with_it():
    task = asyncio.create_task(code().judge(Check(QuestionKind.CODE, SILENT, "import time; time.sleep(600)")))
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await _nobody_left()


async def _nobody_left() -> None:
    """Of the processes that were started in sandboxes."""
    ends = time.monotonic() + 20
    while _sandboxed() and time.monotonic() < ends:
        await asyncio.sleep(0.05)
    assert _sandboxed() == []


def _sandboxed() -> list[int]:
    own = {
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "/run/inside.py" in (process.info["cmdline"] or [])
    }
    return sorted(own)


async def test_without_bubblewrap_answers_are_unscored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(start, "_bubblewrap", lambda: "/bin/false")
    judgement = await code().judge(Check(QuestionKind.CODE, ADD, "print(5)"))
    assert judgement.reason is UnscoredReason.SANDBOX_UNAVAILABLE
    monkeypatch.setattr(start, "_bubblewrap", lambda: "/nowhere/bwrap")
    await code().try_out()
    assert "cannot be judged here (sandbox-unavailable)" in caplog.text


async def test_verdicts_of_programs_in_responses():
    verifier = Verifier({QuestionKind.CODE: code()}, Cache(10))
    right = "Add them.\n```python\na, b = map(int, input().split())\nprint(a + b)\n```\nThat is all."
    texts = {
        "right": right,
        "two blocks": f"```\nprint(0)\n```\n{right}",
        "none": "print(5)",
        "open": "```python\nprint(5)",
    }
    items = tuple(
        VerdictRequest(id=name, kind=QuestionKind.CODE, reference=ADD, response=text) for name, text in texts.items()
    )
    verdicts = {item.id: item.verdict for item in (await verifier.verdicts(VerdictBatch(items=items))).items}
    assert {name: verdict.outcome for name, verdict in verdicts.items()} == {
        "right": RIGHT,
        "two blocks": RIGHT,
        "none": WRONG,
        "open": WRONG,
    }
    assert verdicts["right"].answer == "a, b = map(int, input().split())\nprint(a + b)\n"
    assert verdicts["right"].segments[0].reward == 1.0
