"""Re-verification: stored responses judged again by a newer verifier. Ordered by the cascade, executed by sampling workers."""

from datetime import datetime
from uuid import UUID

from pydantic import Field

from shared.contracts.base import Contract, Items
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import Verdict, VerdictOutcome

MAX_ASSIGNMENTS = 1024


class CheckLimit(Contract):
    """`deadline_s`: how long one check of a kind may work. `at_once`: how many of them do at a time."""

    deadline_s: float = Field(gt=0)
    at_once: int = Field(ge=1)


class Verifiers(Contract):
    """GET /v1/verifiers, made by verification: the `name@version` that judges each kind now, and the limits of what takes time."""

    verifiers: dict[QuestionKind, str]
    limits: dict[QuestionKind, CheckLimit] = Field(default_factory=dict)


class ReverifyIn(Contract):
    """POST /v1/orders/{id}/reverify: an order that judges the responses of order {id} again. Idempotent by (campaign, key).

    Groups are left out in which every response was judged by one of `verifiers`, the present ones.
    """

    key: str = Field(min_length=1, max_length=100)
    verifiers: Items[str] = Field(min_length=1, max_length=100)


class StoredResponsesRequest(Contract):
    """POST /v1/reverifications/responses: a sampling worker asks what to judge for assignments that it holds."""

    assignments: Items[UUID] = Field(min_length=1, max_length=MAX_ASSIGNMENTS)


class StoredResponses(Contract):
    """The texts of an assignment's group, in the order of their positions."""

    assignment_id: UUID
    texts: tuple[str, ...]


class StoredResponsesResult(Contract):
    """One entry an assignment that is known, in the order of the request."""

    items: tuple[StoredResponses, ...]


class NewVerdicts(Contract):
    """The new verdicts of an assignment's group, one a response, in the order of their positions. Idempotent by assignment."""

    assignment_id: UUID
    lease_token: UUID
    verdicts: Items[Verdict] = Field(min_length=1, max_length=256)


class NewVerdictsBatch(Contract):
    """POST /v1/reverifications/verdicts, made by sampling workers; the answer is a `GroupBatchResult`."""

    items: Items[NewVerdicts] = Field(min_length=1, max_length=MAX_ASSIGNMENTS)


class VerdictRecord(Contract):
    """A verdict in the history of a response: by which verifier, in which order (the one that sampled it, or a re-verification).

    An unscored one of a re-verification is kept here and changes nothing else.
    """

    position: int
    order_id: UUID
    verifier: str
    outcome: VerdictOutcome
    unscored_reason: str | None
    answer: str | None
    at: datetime


class FlipCount(Contract):
    """How many responses to questions of a kind went from one outcome to another (or kept it)."""

    kind: QuestionKind
    from_outcome: VerdictOutcome
    to_outcome: VerdictOutcome
    n: int


class Flip(Contract):
    """A response whose outcome is another one by the newer verifier."""

    group_id: UUID
    position: int
    question_id: UUID
    from_outcome: VerdictOutcome
    from_verifier: str
    to_outcome: VerdictOutcome
    to_verifier: str


class Flips(Contract):
    """GET /v1/orders/{id}/flips: all responses judged again by a re-verification, counted; those that flipped, by pages."""

    order_id: UUID
    counts: tuple[FlipCount, ...]
    items: tuple[Flip, ...]
    next: str | None


class ReverifyCampaign(Contract):
    """The answer to POST /v1/campaigns/{campaign}/reverify: the present verifiers, and the orders that judge again with them."""

    verifiers: dict[QuestionKind, str]
    orders: tuple[UUID, ...]
