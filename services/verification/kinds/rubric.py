"""Answers that no program can check, by a policy that judges: marks on STAgent's three dimensions, weights by task type, and a veto.

Every attempt is judged REPEATS times, with the dimensions in turned order, so that how far a judge agrees with itself is seen.
The score is the mean over the judgements of the weighted marks, 0 where any of them says that something was made up; the
outcome is `correct` from a threshold on. The marks are stored, so other weights need no new judging.

Invariant: what the judge did not say clearly is `judge-nonsense`, and never a mark. Limit: a judge can be talked round by the
answer that it judges; the prompt fences the answer off with a word that the answer cannot know, which is a hurdle and no proof.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Annotated, Any
from uuid import UUID

import httpx
from annotated_types import Ge, Le
from prometheus_client import Counter
from pydantic import AfterValidator, ValidationError

from services.verification.kinds.judgement import Check, Judgement, unscored
from shared.contracts.references import rubric
from shared.contracts.verdicts import RubricJudgement, RubricMarks, UnscoredReason, VerdictOutcome
from shared.errors import HeadwaterError
from shared.web import call

VERIFIER = "rubric@1"
REPEATS = 2
ANSWERS_AT_ONCE = 16
MAX_TOKENS = 1024
TEMPERATURE = 0.2
HIGHEST_MARK = 10
_TOO_MANY_REQUESTS, _SERVER_ERROR = 429, 500
log = logging.getLogger(__name__)
DIMENSIONS = {
    "reasoning": "reasoning and proactive planning: are the steps sound, and does it think of what comes next?",
    "fidelity": "information fidelity and integration: is what it says true to its sources, and put together well?",
    "presentation": "presentation and service: is it clear, complete, and of use as it stands?",
}
_PROMPT = Template((Path(__file__).parent.parent / "prompts" / "rubric-1.txt").read_text(encoding="utf-8"))
_repeats = Counter(
    "headwater_verification_rubric_repeats",
    "Attempts by what each of the repeated judgements alone would say",
    ["outcomes"],
)


def _sums_to_one(weights: tuple[float, ...]) -> tuple[float, ...]:
    if abs(sum(weights) - 1) > 1e-6:
        raise ValueError("the three weights of a task type must sum to 1")
    return weights


Weight = Annotated[float, Ge(0), Le(1)]
Weights = Annotated[tuple[Weight, Weight, Weight], AfterValidator(_sums_to_one)]


class JudgeError(Exception):
    """No judgement, with the reason that the answer is unscored for."""

    def __init__(self, reason: UnscoredReason) -> None:
        super().__init__(reason)
        self.reason = reason


class Panel:
    """Judges by asking `policy` (its id) at generation, behind `http`; None: nobody. `weights`: of DIMENSIONS, by task type."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        policy: UUID | None,
        weights: Mapping[str, Weights],
        threshold: float,
        deadline_s: float,
    ) -> None:
        self._http = http
        self._policy = None if policy is None else str(policy)
        self._weights = weights
        self._threshold = threshold
        self._deadline_s = deadline_s
        self._slots = asyncio.Semaphore(ANSWERS_AT_ONCE)

    async def judge(self, check: Check) -> Judgement:
        """Marks, and the outcome that they come to; unscored where a judgement is missing."""
        wanted = rubric(check.reference)
        if wanted is None or wanted.task_type not in self._weights:
            return unscored(UnscoredReason.REFERENCE_UNPARSEABLE)
        if self._policy is None:
            return unscored(UnscoredReason.JUDGE_UNAVAILABLE)
        prompts = [prompt(check.question, wanted.criteria, check.answer, order) for order in _orders()]
        async with self._slots:
            began_s = time.monotonic()
            try:
                replies = await self._all(self._policy, prompts)
            except JudgeError as error:
                return unscored(error.reason)
        marks = weigh(replies, self._policy, wanted.task_type, self._weights[wanted.task_type], self._threshold)
        outcome = VerdictOutcome.CORRECT if marks.score >= self._threshold else VerdictOutcome.INCORRECT
        return Judgement(outcome, milliseconds=1000 * (time.monotonic() - began_s), marks=marks)

    async def _all(self, policy: str, prompts: Sequence[str]) -> list[RubricJudgement]:
        """One judgement a prompt, or none at all. Raises: JudgeError."""
        asked = [asyncio.ensure_future(self._ask(policy, text)) for text in prompts]
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.gather(*asked)
        except TimeoutError as error:
            raise JudgeError(UnscoredReason.TIMEOUT) from error
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _ask(self, policy: str, text: str) -> RubricJudgement:
        """Raises: JudgeError."""
        message = {"role": "user", "content": text}
        body = {"model": policy, "messages": [message], "max_tokens": MAX_TOKENS, "temperature": TEMPERATURE}
        try:
            answer = await call(
                self._http, "POST", "/v1/chat/completions", dict[str, Any], json=body, timeout=self._deadline_s
            )
        except ValidationError as error:
            raise JudgeError(UnscoredReason.JUDGE_NONSENSE) from error
        except HeadwaterError as error:
            log.warning("the judge %s gives no judgement: %s", policy, error)
            passes = error.status == _TOO_MANY_REQUESTS or error.status >= _SERVER_ERROR
            raise JudgeError(UnscoredReason.ENGINE_DOWN if passes else UnscoredReason.JUDGE_UNAVAILABLE) from error
        return read(answer)


def _orders() -> list[list[str]]:
    """The dimensions of each repeated judgement, in turned order."""
    names = list(DIMENSIONS)
    return [names[::-1] if turn % 2 else names for turn in range(REPEATS)]


def prompt(question: str, criteria: str, answer: str, dimensions: Sequence[str]) -> str:
    """What a judge is asked, with the dimensions in this order."""
    return _PROMPT.substitute(
        fence=f"=== {secrets.token_hex(8)} ===",
        question=question,
        criteria=criteria,
        answer=answer,
        dimensions="\n".join(f'- "{name}": {DIMENSIONS[name]}' for name in dimensions),
        example=", ".join(f'"{name}": {number}' for name, number in zip(dimensions, (3, 8, 5), strict=True)),
    )


def read(answer: Any) -> RubricJudgement:
    """The JSON object at the end of a chat completion that was said to its end. Raises: JudgeError `judge-nonsense`."""
    try:
        choice = answer["choices"][0]
        if choice["finish_reason"] != "stop":
            raise JudgeError(UnscoredReason.JUDGE_NONSENSE)
        return RubricJudgement.model_validate(_last_object(str(choice["message"]["content"])))
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise JudgeError(UnscoredReason.JUDGE_NONSENSE) from error


def _last_object(text: str) -> Any:
    """The JSON object that a text ends with, a code fence aside; None when it ends otherwise."""
    text = text.rstrip().removesuffix("```").rstrip()
    decoder, start = json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            found, end = decoder.raw_decode(text, start)
        except ValueError:
            end = start + 1
        else:
            if end == len(text):
                return found
        start = text.find("{", end)
    return None


def weigh(
    judgements: Sequence[RubricJudgement], judge: str, task_type: str, weights: Weights, threshold: float
) -> RubricMarks:
    """Σ weight · mark / 10, averaged over the judgements (STAgent's rubric); 0 where any of them has a veto."""
    scores = [score(judgement, weights) for judgement in judgements]
    outcomes = ["correct" if one >= threshold else "incorrect" for one in scores]
    _repeats.labels(" ".join(outcomes)).inc()
    return RubricMarks(
        judge=judge,
        task_type=task_type,
        judgements=tuple(judgements),
        score=0.0 if any(one.hallucination for one in judgements) else sum(scores) / len(scores),
        agreed=len(set(outcomes)) == 1,
    )


def score(judgement: RubricJudgement, weights: Weights) -> float:
    """From 0 to 1; a veto is 0."""
    if judgement.hallucination:
        return 0.0
    marks = (judgement.reasoning, judgement.fidelity, judgement.presentation)
    return min(1.0, sum(weight * mark for weight, mark in zip(weights, marks, strict=True)) / HIGHEST_MARK)
