"""What may be wrong with an engine: it does not answer, it says no, or what it says is no answer of vLLM's."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

_UNREADABLE = 502


class EngineDownError(Exception):
    """The engine does not answer, or answers that it is broken."""


class EngineRefusedError(Exception):
    """The engine answered and said no; the text is its own reason."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


@contextmanager
def understood(path: str) -> Iterator[None]:
    """For reading what `path` answered. Raises EngineRefusedError where it is no JSON or of another shape."""
    try:
        yield
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        sentence = f"{path} answered something that cannot be read ({type(error).__name__}); is it vLLM?"
        raise EngineRefusedError(sentence, _UNREADABLE) from error


def raise_refusal(response: httpx.Response) -> None:
    """The engine's own reason. An engine whose core died still answers 500 for a while: that is down, not a refusal."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = None
    error = body.get("error", body.get("detail", "")) if isinstance(body, dict) else ""
    reason = str(error.get("message", "")) if isinstance(error, dict) else str(error)
    if "EngineCore encountered an issue" in reason or "EngineDeadError" in reason:
        raise EngineDownError(f"The engine's core died: {reason}")
    raise EngineRefusedError(
        reason or f"{response.request.url.path} answered {response.status_code}", response.status_code
    )
