"""Programs in Python, by running them: on inputs with known outputs, or with assertions after them.

Each test runs in a sandbox of its own (`services.verification.sandbox`), and its output is compared outside. What a program does
within its limits, or against them, is its own doing: an error, a wrong output, more CPU or memory than it may. What the clock ends
(it slept, or this machine was busy), or a hand that we do not know, is unscored.

Limit: assertions run in the program's own process, which could find the word that says that they held. For rewards, prefer `tests`.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import replace

from services.verification.kinds.judgement import CORRECT, INCORRECT, Check, Judgement, scored, unscored
from services.verification.sandbox.start import Ending, Execution, Program, Sandbox, SandboxError
from shared.contracts.questions import QuestionKind
from shared.contracts.references import CodeTests, code_tests
from shared.contracts.verdicts import UnscoredReason, VerdictOutcome

VERIFIER = "code@1"
WALL_S_PER_CPU_S = 2
STARTING_S = 5.0
_TRIAL = Check(
    QuestionKind.CODE, '{"tests": [{"input": "6 7", "output": "42"}]}', "a, b = input().split(); print(int(a) * int(b))"
)
log = logging.getLogger(__name__)


class Code:
    """Judges programs, `at_once` at the same time, each within `deadline_s` from the start of its work."""

    def __init__(self, sandbox: Sandbox, at_once: int, deadline_s: float) -> None:
        self._sandbox = sandbox
        self._slots = asyncio.Semaphore(at_once)
        self._deadline_s = deadline_s

    async def judge(self, check: Check) -> Judgement:
        """Correct iff every test passes; the first that does not ends the check."""
        tests = code_tests(check.reference)
        if tests is None:
            return unscored(UnscoredReason.REFERENCE_UNPARSEABLE)
        async with self._slots:
            began_s = time.monotonic()
            judgement = await self._within_deadline(tests, check.answer)
        return replace(judgement, milliseconds=1000 * (time.monotonic() - began_s))

    async def try_out(self) -> None:
        """Say so in the log where no program can be run."""
        judgement = await self.judge(_TRIAL)
        if judgement.outcome is not VerdictOutcome.CORRECT:
            log.warning("answers of kind 'code' cannot be judged here (%s): see docs/verifiers.md", judgement.reason)

    async def _within_deadline(self, tests: CodeTests, answer: str) -> Judgement:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._run(tests, answer)
        except TimeoutError:
            return unscored(UnscoredReason.TIMEOUT)
        except SandboxError as error:
            log.warning("a program could not be run: %s", error)
            return unscored(UnscoredReason.SANDBOX_UNAVAILABLE)

    async def _run(self, tests: CodeTests, answer: str) -> Judgement:
        wall_s = STARTING_S + WALL_S_PER_CPU_S * tests.time_limit_s
        for program, expected in _programs(tests, answer):
            judgement = _judgement(await self._sandbox.run(program, tests.time_limit_s, wall_s), expected)
            if judgement is not CORRECT:
                return judgement
        return CORRECT


def _programs(tests: CodeTests, answer: str) -> Iterator[tuple[Program, str | None]]:
    """What is run, and all that it is to print; None where assertions judge it."""
    if tests.assertions:
        yield Program(answer, assertions="\n".join(tests.assertions)), None
    for test in tests.tests:
        yield Program(answer, stdin=test.input), test.output


def _judgement(execution: Execution, expected: str | None) -> Judgement:
    """What one execution says of the program."""
    match execution.ending:
        case Ending.OUT_OF_TIME:
            return unscored(UnscoredReason.TIMEOUT)
        case Ending.KILLED:
            return unscored(UnscoredReason.MEMORY)
        case Ending.OUT_OF_CPU | Ending.FAILED:
            return INCORRECT
        case Ending.PASSED:
            printed = execution.stdout.decode("utf-8", "replace")
            return scored(expected is None or _lines(printed) == _lines(expected))


def _lines(text: str) -> list[str]:
    """What is compared: lines without white space at their ends, and no empty lines at the end."""
    return [line.rstrip() for line in text.rstrip().splitlines()]
