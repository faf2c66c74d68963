"""Verdicts: outcome of the last attempt, rewards of every segment, and failures that never become a reward."""

import asyncio

import pytest

from services.verification.cache import Cache
from services.verification.kinds.judgement import CORRECT, INCORRECT, Check, Judgement, unscored
from services.verification.service import Verifier, verification_reward
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import (
    ClaimedVerdict,
    UnscoredReason,
    Verdict,
    VerdictBatch,
    VerdictOutcome,
    VerdictRequest,
)
from shared.trajectories.segments import RECHECK_PHRASE, RETRY_PHRASE

CHECKED = f"\n{RECHECK_PHRASE}\nlet me see\nTherefore, the answer"


class Pool:
    """Answers what it was told; counts."""

    def __init__(self, *judgements: Judgement) -> None:
        self.judgements = list(judgements)
        self.asked: list[str] = []

    async def judge(self, check: Check) -> Judgement:
        self.asked.append(check.answer)
        await asyncio.sleep(0)
        return self.judgements.pop(0) if self.judgements else CORRECT


def request(response: str, reference: str = "5", kind: QuestionKind = QuestionKind.MATH) -> VerdictRequest:
    return VerdictRequest(id="r", kind=kind, reference=reference, response=response)


async def one(verifier: Verifier, item: VerdictRequest) -> Verdict:
    return (await verifier.verdicts(VerdictBatch(items=(item,)))).items[0].verdict


async def verdict(response: str, reference: str = "5", pool: Pool | None = None):
    return await one(Verifier({QuestionKind.MATH: pool or Pool()}, Cache(10)), request(response, reference))


async def test_two_rounds():
    text = f"\\boxed{{4}}{CHECKED} is incorrect.\n{RETRY_PHRASE}\n\\boxed{{5}}{CHECKED} is incorrect."
    given = await verdict(text)
    assert given.outcome is VerdictOutcome.CORRECT
    assert given.answer == "5"
    assert given.unparsed is None
    assert [segment.reward for segment in given.segments] == [-1.0, 1.0, 1.0, -1.0]
    assert [text[s.start : s.end] for s in given.segments] == [
        "\\boxed{4}",
        f"{CHECKED} is incorrect.",
        f"\n{RETRY_PHRASE}\n\\boxed{{5}}",
        f"{CHECKED} is incorrect.",
    ]


async def test_last_attempt_counts():
    text = f"\\boxed{{5}}{CHECKED} is incorrect.\n{RETRY_PHRASE}\n\\boxed{{6}}{CHECKED} is correct."
    given = await verdict(text)
    assert given.outcome is VerdictOutcome.INCORRECT
    assert [segment.reward for segment in given.segments] == [1.0, -1.0, -1.0, -1.0]


@pytest.mark.parametrize("answer", ["4", "5"])
async def test_no_clear_verdict_is_no_reward(answer: str):
    for ending in (f"{CHECKED} cannot be verified.", f"\n{RECHECK_PHRASE}\nit looks correct"):
        given = await verdict(f"\\boxed{{{answer}}}{ending}")
        assert given.segments[1].reward is None
        assert given.segments[0].reward == (1.0 if answer == "5" else -1.0)


@pytest.mark.parametrize(
    "response", ["", "I do not know", "\\boxed{", f"\\boxed{{5}}{CHECKED} is incorrect.\n{RETRY_PHRASE}\n"]
)
async def test_no_final_answer_is_the_models_fault(response: str):
    given = await verdict(response)
    assert given.outcome is VerdictOutcome.INCORRECT
    assert given.unscored_reason is None
    assert given.unparsed is not None
    assert given.answer is None


async def test_our_failure_is_unscored_and_gives_no_reward():
    given = await verdict(f"\\boxed{{a}}{CHECKED} is correct.", "x", Pool(unscored(UnscoredReason.MEMORY)))
    assert given.outcome is VerdictOutcome.UNSCORED
    assert given.unscored_reason is UnscoredReason.MEMORY
    assert [segment.reward for segment in given.segments] == [None, None]


async def test_one_hanging_attempt_ends_the_checks_of_a_response_but_not_its_outcome():
    pool = Pool(INCORRECT, unscored(UnscoredReason.TIMEOUT))
    again = f"{CHECKED} is incorrect.\n{RETRY_PHRASE}\n"
    given = await verdict(f"\\boxed{{a}}{again}\\boxed{{b}}{again}\\boxed{{c}}", "x", pool)
    assert pool.asked == ["c", "b"]
    assert given.outcome is VerdictOutcome.INCORRECT
    assert [segment.reward for segment in given.segments if segment.kind == "solve"] == [None, None, -1.0]


@pytest.mark.parametrize("truth", list(VerdictOutcome))
@pytest.mark.parametrize("claimed", [*ClaimedVerdict, None])
def test_verification_reward(truth: VerdictOutcome, claimed: ClaimedVerdict | None):
    reward = verification_reward(truth, claimed)
    if truth is VerdictOutcome.UNSCORED or claimed not in (ClaimedVerdict.CORRECT, ClaimedVerdict.INCORRECT):
        assert reward is None
    else:
        assert reward == (1.0 if claimed.value == truth.value else -1.0)


async def test_same_check_runs_once_and_is_remembered():
    pool = Pool()
    verifier = Verifier({QuestionKind.MATH: pool}, Cache(10))
    batch = VerdictBatch(items=tuple(request("\\boxed{y}", "x") for _ in range(5)))
    assert len((await verifier.verdicts(batch)).items) == 5
    await one(verifier, request("\\boxed{y}", "x"))
    assert pool.asked == ["y"]
    await one(verifier, request("\\boxed{y}", "z"))
    assert pool.asked == ["y", "y"]


class Endless:
    """Never ends by itself."""

    def __init__(self) -> None:
        self.running = 0
        self.begun = asyncio.Event()

    async def judge(self, check: Check) -> Judgement:
        self.running += 1
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1
        return CORRECT


async def test_a_check_ends_when_the_last_who_waits_for_it_leaves():
    judge = Endless()
    verifier = Verifier({QuestionKind.MATH: judge}, Cache(10))
    callers = [asyncio.create_task(one(verifier, request("\\boxed{y}", "x"))) for _ in range(2)]
    await judge.begun.wait()
    for left in (1, 0):
        callers.pop().cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert judge.running == left


async def test_failures_are_not_remembered_and_the_cache_is_bounded():
    pool = Pool(unscored(UnscoredReason.TIMEOUT))
    verifier = Verifier({QuestionKind.MATH: pool}, Cache(1))
    assert (await one(verifier, request("\\boxed{y}", "x"))).outcome is VerdictOutcome.UNSCORED
    assert (await one(verifier, request("\\boxed{y}", "x"))).outcome is VerdictOutcome.CORRECT
    await one(verifier, request("\\boxed{z}", "x"))
    await one(verifier, request("\\boxed{y}", "x"))
    assert pool.asked == ["y", "y", "z", "y"]


async def test_in_process_kinds_and_integers_need_no_pool():
    pool = Pool()
    verifier = Verifier({QuestionKind.MATH: pool}, Cache(10))
    for kind, reference in ((QuestionKind.NUMERIC, "5.0"), (QuestionKind.EXACT, "5"), (QuestionKind.MATH, "5")):
        given = await one(verifier, request("\\boxed{5}", reference, kind))
        assert given.outcome is VerdictOutcome.CORRECT
        assert "@" in given.verifier
    assert pool.asked == []
