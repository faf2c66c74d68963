"""Verdicts: made by verification, stored by the pool, read by training and the metrics."""

from enum import StrEnum

from pydantic import Field

from shared.contracts.base import Contract, Items
from shared.contracts.questions import QuestionKind


class VerdictOutcome(StrEnum):
    """Three-valued: a check that failed is not a wrong answer."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    UNSCORED = "unscored"


class UnscoredReason(StrEnum):
    """Why a response has no score. Never trained on, never counted as wrong."""

    TIMEOUT = "timeout"
    MEMORY = "memory"
    REFERENCE_UNPARSEABLE = "reference-unparseable"
    RESPONSE_UNPARSEABLE = "response-unparseable"
    VERIFIER_CRASHED = "verifier-crashed"
    SANDBOX_UNAVAILABLE = "sandbox-unavailable"
    JUDGE_NONSENSE = "judge-nonsense"
    JUDGE_UNAVAILABLE = "judge-unavailable"
    ENGINE_DOWN = "engine-down"
    UNKNOWN_KIND = "unknown-kind"


class SegmentKind(StrEnum):
    """`observe` (tool output) is never trained."""

    SOLVE = "solve"
    VERIFY = "verify"
    ACT = "act"
    OBSERVE = "observe"


class ClaimedVerdict(StrEnum):
    """What a verify segment says of the attempt before it."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    UNVERIFIABLE = "unverifiable"


class RubricJudgement(Contract):
    """What a judge said once: marks from 0 to 10 on STAgent's three dimensions, and whether something was made up, with evidence.

    `reasoning`: reasoning and proactive planning; `fidelity`: information fidelity and integration; `presentation`: presentation and
    service loop.
    """

    reasoning: int = Field(ge=0, le=10)
    fidelity: int = Field(ge=0, le=10)
    presentation: int = Field(ge=0, le=10)
    hallucination: bool
    evidence: str = Field(max_length=2000)


class RubricMarks(Contract):
    """The repeated judgements of one attempt as they were given, so that other weights need no new judging.

    `score`, 0 to 1: the weighted mean of the marks, 0 where any judgement has a veto. `agreed`: each of the judgements alone would
    have had the same outcome.
    """

    judge: str
    task_type: str
    judgements: Items[RubricJudgement] = Field(min_length=1, max_length=8)
    score: float = Field(ge=0, le=1)
    agreed: bool


class ScoredSegment(Contract):
    """One segment of a response: character offsets [start, end), what it claims, and its reward.

    `reward` is +1 / -1 (solve: answer correct; verify: verdict equals the truth, S2R), or None where it could not be judged. That
    of a solve of kind `rubric` is 2 × score − 1, and `marks` are what it is made of.
    """

    kind: SegmentKind
    start: int = Field(ge=0)
    end: int = Field(ge=0)
    answer: str | None = None
    claimed: ClaimedVerdict | None = None
    reward: float | None = None
    marks: RubricMarks | None = None


class Verdict(Contract):
    """The judgement of one response.

    `outcome` is about the LAST solve segment. `unparsed` is the parser's reason when the text does not follow the
    trajectory format (None when it does). `verifier` is `name@version`.
    """

    outcome: VerdictOutcome
    unscored_reason: UnscoredReason | None = None
    answer: str | None = None
    segments: Items[ScoredSegment] = ()
    unparsed: str | None = None
    verifier: str
    milliseconds: float = 0.0


class VerdictRequest(Contract):
    """One response to judge; `id` is the caller's and comes back with the verdict. `question` is what a judge of kind `rubric` is shown."""

    id: str
    kind: QuestionKind
    reference: str
    response: str
    question: str = ""


class VerdictBatch(Contract):
    """Made by sampling workers, read by verification."""

    items: Items[VerdictRequest] = Field(max_length=4096)


class IdentifiedVerdict(Contract):
    """A verdict under the id of its request."""

    id: str
    verdict: Verdict


class VerdictBatchResult(Contract):
    """Made by verification, one entry per request, in the order of the request."""

    items: tuple[IdentifiedVerdict, ...]
