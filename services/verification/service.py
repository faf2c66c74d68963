"""Verdicts: cut a response into segments, judge every attempt against the reference, and reward each segment.

Invariants: the same (kind, reference, answer) is judged once at a time, and remembered unless something on our side broke;
a failure of ours is `unscored`, a response without an answer is the model's failure and incorrect; a verification without a
clear verdict is never rewarded.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client import Counter

from services.verification.cache import Cache, content_hash
from services.verification.kinds import choice, code, exact, math, numeric, rubric
from services.verification.kinds.judgement import INCORRECT, Check, Judgement, unscored
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import (
    ClaimedVerdict,
    IdentifiedVerdict,
    RubricMarks,
    ScoredSegment,
    SegmentKind,
    UnscoredReason,
    Verdict,
    VerdictBatch,
    VerdictBatchResult,
    VerdictOutcome,
    VerdictRequest,
)
from shared.trajectories.segments import Segment, Trajectory, boxed_answer, code_block, parse, whole_attempt
from shared.trajectories.segments import SegmentKind as ParsedKind

_verdicts = Counter("headwater_verification_verdicts", "Verdicts given", ["kind", "outcome", "reason"])
IN_PROCESS: dict[QuestionKind, Callable[[str, str], Judgement]] = {
    QuestionKind.CHOICE: choice.judge,
    QuestionKind.EXACT: exact.judge,
    QuestionKind.NUMERIC: numeric.judge,
}
SHORTCUTS: dict[QuestionKind, Callable[[str, str], Judgement | None]] = {QuestionKind.MATH: math.shortcut}
VERIFIERS: dict[QuestionKind, str] = {
    QuestionKind.CHOICE: choice.VERIFIER,
    QuestionKind.CODE: code.VERIFIER,
    QuestionKind.EXACT: exact.VERIFIER,
    QuestionKind.MATH: math.VERIFIER,
    QuestionKind.NUMERIC: numeric.VERIFIER,
    QuestionKind.RUBRIC: rubric.VERIFIER,
}
# Where the answer is in the text of an attempt; boxed, where nothing else is said.
ANSWERS: dict[QuestionKind, Callable[[str], str | None]] = {
    QuestionKind.CODE: code_block,
    QuestionKind.RUBRIC: whole_attempt,
}
# A judge's marks are worth more than that they came to a verdict: they are not remembered but stored.
REMEMBERED = frozenset({QuestionKind.MATH, QuestionKind.CODE})
_REWARD = {VerdictOutcome.CORRECT: 1.0, VerdictOutcome.INCORRECT: -1.0, VerdictOutcome.UNSCORED: None}


class Judges(Protocol):
    """Who judges what takes time: worker processes, a sandbox, a policy."""

    async def judge(self, check: Check) -> Judgement:
        """One check; always ends."""
        ...


class Verifier:
    """Gives verdicts; what takes time is judged by one of `judges`, unless the `cache` knows it."""

    def __init__(self, judges: Mapping[QuestionKind, Judges], cache: Cache) -> None:
        self._judges = judges
        self._cache = cache
        self._running: dict[bytes, asyncio.Task[Judgement]] = {}
        self._callers: dict[bytes, int] = {}

    async def verdicts(self, batch: VerdictBatch) -> VerdictBatchResult:
        """One verdict a request, in order. Raises UnavailableError when the pool cannot work."""
        finished = {index: item async for index, item in self.as_finished(batch)}
        return VerdictBatchResult(items=tuple(finished[index] for index in range(len(batch.items))))

    async def as_finished(self, batch: VerdictBatch) -> AsyncGenerator[tuple[int, IdentifiedVerdict], None]:
        """The place in the batch and the verdict of each request, as they come. Raises UnavailableError, after those it has."""
        work = [(request, parse(request.response, ANSWERS.get(request.kind, boxed_answer))) for request in batch.items]
        await self._cache.load([key for request, trajectory in work for key in _keys(request, trajectory)])
        tasks = [asyncio.create_task(self._identified(index, *item)) for index, item in enumerate(work)]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._cache.store()

    async def _identified(
        self, index: int, request: VerdictRequest, trajectory: Trajectory
    ) -> tuple[int, IdentifiedVerdict]:
        return index, IdentifiedVerdict(id=request.id, verdict=await self._verdict(request, trajectory))

    async def _verdict(self, request: VerdictRequest, trajectory: Trajectory) -> Verdict:
        """The verdict of one response; its outcome is that of the LAST attempt."""
        judgements = await self._judge_attempts(request, trajectory)
        last = next((judgements[item] for item in reversed(trajectory.segments) if item in judgements), INCORRECT)
        _verdicts.labels(request.kind, last.outcome, last.reason or "").inc()
        return Verdict(
            outcome=last.outcome,
            unscored_reason=last.reason,
            answer=trajectory.final_answer,
            segments=reward_segments(trajectory, judgements),
            unparsed=trajectory.unparsed,
            verifier=VERIFIERS.get(request.kind, "none@0"),
            milliseconds=round(sum(judgement.milliseconds for judgement in judgements.values()), 3),
        )

    async def _judge_attempts(self, request: VerdictRequest, trajectory: Trajectory) -> dict[Segment, Judgement]:
        """By attempt, the last one first. One check that hangs is enough: the response's other checks are then let go."""
        judgements: dict[Segment, Judgement] = {}
        hung = False
        for segment in reversed(trajectory.solves):
            if segment.answer is None:
                judgements[segment] = INCORRECT
            elif hung:
                judgements[segment] = unscored(UnscoredReason.TIMEOUT)
            else:
                judgement = await self._judge(_check(request, segment.answer))
                judgements[segment] = judgement
                hung = judgement.reason is UnscoredReason.TIMEOUT
        return judgements

    async def _judge(self, check: Check) -> Judgement:
        if check.kind in IN_PROCESS:
            return IN_PROCESS[check.kind](check.reference, check.answer)
        if check.kind not in self._judges:
            return unscored(UnscoredReason.UNKNOWN_KIND)
        quick = SHORTCUTS[check.kind](check.reference, check.answer) if check.kind in SHORTCUTS else None
        if quick is not None:
            return quick
        key = _key(check)
        if check.kind in REMEMBERED and (known := self._cache.get(key)) is not None:
            return known
        task = self._running.get(key)
        if task is None or task.cancelling():
            task = asyncio.create_task(self._judge_once(key, check))
            self._running[key] = task
        # A caller that leaves does not take the check from those who wait for the same; the last one does.
        self._callers[key] = self._callers.get(key, 0) + 1
        try:
            return await asyncio.shield(task)
        finally:
            self._callers[key] -= 1
            if not self._callers[key]:
                del self._callers[key]
                task.cancel()

    async def _judge_once(self, key: bytes, check: Check) -> Judgement:
        try:
            judgement = await self._judges[check.kind].judge(check)
        finally:
            if self._running.get(key) is asyncio.current_task():
                del self._running[key]
        if check.kind in REMEMBERED:
            self._cache.put(key, judgement)
        return judgement


def _check(request: VerdictRequest, answer: str) -> Check:
    return Check(request.kind, request.reference, answer, request.question)


def _key(check: Check) -> bytes:
    reference = f"{check.reference}\0{check.question}" if check.question else check.reference
    return content_hash(VERIFIERS[check.kind], check.kind, reference, check.answer)


def _keys(request: VerdictRequest, trajectory: Trajectory) -> Iterator[bytes]:
    """Of the checks that may be remembered."""
    if request.kind in REMEMBERED:
        for segment in trajectory.solves:
            if segment.answer is not None:
                yield _key(_check(request, segment.answer))


def reward_segments(trajectory: Trajectory, judgements: dict[Segment, Judgement]) -> tuple[ScoredSegment, ...]:
    """Rewards of all segments: a solve's correctness; a verify's +1 iff its verdict is the truth about the attempt before it."""
    scored = []
    attempt: Judgement | None = None
    for segment in trajectory.segments:
        reward: float | None = None
        marks: RubricMarks | None = None
        claimed = ClaimedVerdict(segment.verdict.value) if segment.verdict else None
        if segment.kind is ParsedKind.SOLVE:
            attempt = judgements[segment]
            marks = attempt.marks
            reward = _REWARD[attempt.outcome] if marks is None else 2 * marks.score - 1
        elif segment.kind is ParsedKind.VERIFY and attempt is not None:
            reward = verification_reward(attempt.outcome, claimed)
        scored.append(
            ScoredSegment(
                kind=SegmentKind(segment.kind.value),
                start=segment.start,
                end=segment.end,
                answer=segment.answer,
                claimed=claimed,
                reward=reward,
                marks=marks,
            )
        )
    return tuple(scored)


def verification_reward(truth: VerdictOutcome, claimed: ClaimedVerdict | None) -> float | None:
    """S2R: +1 iff the verdict equals the truth, else -1; None where nothing clear was claimed or the truth is unknown."""
    if claimed not in (ClaimedVerdict.CORRECT, ClaimedVerdict.INCORRECT) or truth is VerdictOutcome.UNSCORED:
        return None
    return 1.0 if (claimed is ClaimedVerdict.CORRECT) == (truth is VerdictOutcome.CORRECT) else -1.0
