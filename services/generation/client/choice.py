"""One sampled answer as the engine gives it."""

from dataclasses import dataclass
from typing import Any

from services.generation.client.engine_errors import EngineRefusedError

FINISH_REASONS = ("stop", "length")


@dataclass(frozen=True)
class Choice:
    """One sampled answer; `tokens` are the engine's strings of `token_ids`."""

    text: str
    finish_reason: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    tokens: tuple[str, ...]
    ends_with_stop_token: bool


def read_choices(answer: dict[str, Any]) -> tuple[Choice, ...]:
    """All answers of a completion, in order. Raises EngineRefusedError; KeyError, TypeError, ValueError where it is none."""
    return tuple(_choice(choice) for choice in sorted(answer["choices"], key=lambda choice: int(choice["index"])))


def _choice(choice: dict[str, Any]) -> Choice:
    text, logprobs = choice["text"], choice["logprobs"]
    text.encode()  # a lone surrogate could not be passed on
    found = Choice(
        text=text,
        finish_reason=choice["finish_reason"],
        token_ids=tuple(int(token) for token in choice["token_ids"]),
        logprobs=tuple(float(logprob) for logprob in logprobs["token_logprobs"]),
        tokens=tuple(logprobs["tokens"]),
        ends_with_stop_token=choice["finish_reason"] == "stop" and not isinstance(choice.get("stop_reason"), str),
    )
    if found.finish_reason not in FINISH_REASONS:
        raise EngineRefusedError(f"the engine ended an answer with {found.finish_reason!r}", 502)
    if not len(found.token_ids) == len(found.logprobs) == len(found.tokens):
        raise EngineRefusedError(
            "the engine answered token ids, log-probabilities and tokens of different lengths", 502
        )
    return found
