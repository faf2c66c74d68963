"""Errors that a user or another service may see: a stable code, a sentence, an HTTP status, details by item."""

from collections.abc import Sequence

from shared.contracts.problems import Problem, ProblemDetail


class HeadwaterError(Exception):
    """A named failure; `shared.web` turns it into a `ProblemBody`, the CLI into a sentence."""

    def __init__(self, code: str, message: str, status: int = 400, details: Sequence[ProblemDetail] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.details = tuple(details)

    def problem(self) -> Problem:
        """The wire form."""
        return Problem(code=self.code, message=self.message, details=self.details)


class NotFoundError(HeadwaterError):
    """404: `what` with this id does not exist."""

    def __init__(self, what: str, identifier: object) -> None:
        super().__init__("not_found", f"There is no {what} {identifier}.", 404)


class ConflictError(HeadwaterError):
    """409: the request contradicts what is stored."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message, 409)


class UnavailableError(HeadwaterError):
    """503: something that this service needs does not answer; repeat later."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message, 503)
