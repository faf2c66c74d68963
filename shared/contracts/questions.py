"""Questions: made by clients (and `headwater submit`), kept by the pool."""

from enum import StrEnum
from uuid import UUID

from pydantic import Field

from shared.contracts.base import Contract

MAX_TEXT_CHARACTERS = 100_000


class Split(StrEnum):
    """Fixed at ingest; an eval question never trains."""

    TRAIN = "train"
    EVAL = "eval"


class QuestionKind(StrEnum):
    """How an answer is judged. Every kind needs a reference; that of `code` and `rubric` is JSON (`shared/contracts/references.py`)."""

    MATH = "math"
    NUMERIC = "numeric"
    EXACT = "exact"
    CHOICE = "choice"
    CODE = "code"
    RUBRIC = "rubric"


class QuestionState(StrEnum):
    """Where a question stands, relative to the newest policy that was probed."""

    CANDIDATE = "candidate"
    CERTAIN = "certain"
    HARD = "hard"
    NOISE = "noise"
    TRIVIAL = "trivial"
    QUARANTINED = "quarantined"
    RETRACTED = "retracted"


class QuestionIn(Contract):
    """One submitted question; field `question` is its text. `domain` names the templates that can verify it."""

    question: str = Field(min_length=1, max_length=MAX_TEXT_CHARACTERS)
    answer: str = Field(min_length=1, max_length=MAX_TEXT_CHARACTERS)
    solution: str | None = Field(default=None, max_length=MAX_TEXT_CHARACTERS)
    kind: QuestionKind = QuestionKind.MATH
    split: Split = Split.TRAIN
    domain: str = Field(default="text", pattern=r"^[a-z][a-z0-9_-]{0,63}$")
    source: str = Field(default="", max_length=200)


class Question(Contract):
    """A stored question. `tiny` says that a verified teacher answer put it into the tiny QA pool."""

    id: UUID
    campaign_id: UUID
    text: str
    answer: str
    solution: str | None = None
    kind: QuestionKind
    split: Split
    domain: str
    source: str = ""
    state: QuestionState
    tiny: bool
    level: int | None = None
    pass_rate: float | None = None


class RefusalReason(StrEnum):
    """Why one line of a submission was refused."""

    INVALID_JSON = "invalid_json"
    INVALID_UTF8 = "invalid_utf8"
    INVALID_FIELD = "invalid_field"
    NUL_CHARACTER = "nul_character"
    BLANK = "blank"
    TOO_LARGE = "too_large"
    EVAL_LEAK = "eval_leak"
    CONFLICT = "conflict"
    REFERENCE_UNPARSEABLE = "reference_unparseable"
    NOT_A_MAPPING = "not_a_mapping"


class Refusal(Contract):
    """One refused line: its number (from 1), the field, the reason and what to do."""

    line: int
    field: str | None = None
    reason: RefusalReason
    message: str


class NearDuplicate(Contract):
    """An item that was left out because a stored training question asks the same in nearly the same words."""

    line: int
    question_id: UUID
    similarity: float


class Quarantine(Contract):
    """A stored training question that leaves because the eval question of item `line` is equal to or near it.

    `runs`: those that hold or acknowledged a batch with it. `snapshots`: those with rows of it.
    """

    question_id: UUID
    line: int
    similarity: float
    runs: tuple[UUID, ...] = ()
    snapshots: tuple[UUID, ...] = ()


class IngestReport(Contract):
    """The answer to a submission. The counts are exact; `refusals`, `near_duplicates` and `quarantines` list the first 1,000.

    accepted + duplicate + refused = items; `near_duplicate` counts those of the duplicates that are near and not equal.
    `quarantined` counts training questions stored before that are near an eval question of this submission.
    """

    accepted: int
    duplicate: int
    refused: int
    near_duplicate: int = 0
    quarantined: int = 0
    refusals: tuple[Refusal, ...] = ()
    near_duplicates: tuple[NearDuplicate, ...] = ()
    quarantines: tuple[Quarantine, ...] = ()


class PoolCounts(Contract):
    """Counts of a campaign's questions; made by the pool, read by the cascade, the CLI and the report."""

    candidate: int = 0
    certain: int = 0
    hard: int = 0
    noise: int = 0
    trivial: int = 0
    quarantined: int = 0
    retracted: int = 0
    tiny: int = 0
    train: int = 0
    eval: int = 0
    levels: dict[int, int] = Field(default_factory=dict)
    groups: int = 0
    responses: int = 0
