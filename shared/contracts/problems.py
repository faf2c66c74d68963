"""The one error body of every API. Made by `shared.web`, read by every client and the CLI."""

from shared.contracts.base import Contract


class ProblemDetail(Contract):
    """What is wrong with one item of a request: which item, which field, why, in one sentence."""

    item: str | None = None
    field: str | None = None
    reason: str
    message: str


class Problem(Contract):
    """`code` is stable and machine-readable; `message` names the item, the cause and the way out."""

    code: str
    message: str
    details: tuple[ProblemDetail, ...] = ()


class ProblemBody(Contract):
    """The JSON body of every 4xx and 5xx answer."""

    error: Problem
