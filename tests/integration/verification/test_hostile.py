"""Answers made to break a checker: what becomes of each, and that the next check is judged as ever."""

import pytest

from services.verification.cache import Cache
from services.verification.pool import WorkerPool
from services.verification.processes import worker_command
from services.verification.service import Verifier
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import UnscoredReason, VerdictBatch, VerdictRequest

pytestmark = pytest.mark.integration
DEADLINE_S = 1.5
TIMEOUT, CRASHED, MEMORY = UnscoredReason.TIMEOUT, UnscoredReason.VERIFIER_CRASHED, UnscoredReason.MEMORY
# Each with the reasons it may be unscored for; None: incorrect. Those that are only slow depend on the machine.
HOSTILE: dict[str, tuple[str, set[UnscoredReason | None]]] = {
    "nested braces": ("{" * 5_000 + "x" + "}" * 5_000, {TIMEOUT, CRASHED}),
    "brackets that never close": ("(" * 5_000, {TIMEOUT, CRASHED}),
    "a giant power": ("9^{9^{9^{9}}}", {TIMEOUT, MEMORY}),
    "a factorial": ("(10^{9})!", {TIMEOUT, MEMORY}),
    "a tower of fractions": (r"\frac{1}{" * 300 + "2" + "}" * 300, {TIMEOUT, None}),
    "a tower of roots": (r"\sqrt{" * 300 + "2" + "}" * 300, {TIMEOUT, None}),
    "a long sum": ("+".join(["x"] * 20_000), {TIMEOUT, None}),
    "a megabyte": ("7" * 1_000_000, {TIMEOUT, CRASHED}),
    "a megabyte of spaces": ("x" + " " * 1_000_000 + "y", {TIMEOUT, None}),
    "NUL": ("\0", {None}),
    "half a surrogate pair": ("\ud800", {None}),
    "marks without a letter": ("\u0301" * 100_000, {None}),
    "code": ("__import__('os').system('id')", {None}),
    "a template": ("{{7*7}}${7*7}", {None}),
    "not a number": (r"\frac{0}{0}", {None}),
    "infinity": (r"\infty - \infty", {None}),
}


async def test_hostile_answers():
    pool = WorkerPool(worker_command(1 << 30), 2, DEADLINE_S)
    pool.start()
    verifier = Verifier({QuestionKind.MATH: pool}, Cache(100))

    def request(name: str, answer: str) -> VerdictRequest:
        return VerdictRequest(
            id=name, kind=QuestionKind.MATH, reference=r"\frac{x}{3}", response=f"\\boxed{{{answer}}}"
        )

    try:
        items = tuple(request(name, answer) for name, (answer, _) in HOSTILE.items())
        result = await verifier.verdicts(VerdictBatch(items=items))
        seen = {item.id: (item.verdict.outcome, item.verdict.unscored_reason) for item in result.items}
        for name, (_, allowed) in HOSTILE.items():
            outcome, reason = seen[name]
            assert outcome != "correct", name
            assert reason in allowed, (name, seen[name])
            assert (outcome == "unscored") == (reason is not None), name
        after = await verifier.verdicts(VerdictBatch(items=(request("x/3", "x/3"),)))
        assert after.items[0].verdict.outcome == "correct"
    finally:
        await pool.close()
