"""What a domain offers the trajectory builder: the same four functions, whatever the field.

Invariant: a verification made here states the verdict its own working supports; whether that is the truth is checked by the
builder against the judged attempt. A function that cannot help answers None.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from shared.trajectories.segments import VERDICT_SENTENCES, ClaimedVerdict, boxed_answer


@dataclass(frozen=True, slots=True)
class Domain:
    """A field of questions.

    `solve(question, reference)` writes a worked solution ending in a boxed answer, from the question or its reference
    solution. `confirm(question, answer)` checks an answer without solving again. `recompute(question, answer, other)` checks it
    against another attempt at the same question. `slip(solution, rng)` is a plausible wrong attempt with another answer.
    """

    name: str
    solve: Callable[[str, str | None], str | None]
    confirm: Callable[[str, str], str | None]
    recompute: Callable[[str, str, str], str | None]
    slip: Callable[[str, Random], str | None]


def conclude(working: str, agrees: bool) -> str:
    """A verification: its working, then the verdict sentence on a line of its own."""
    verdict = ClaimedVerdict.CORRECT if agrees else ClaimedVerdict.INCORRECT
    return f"{working}\n{VERDICT_SENTENCES[verdict]}"


def recompute(question: str, answer: str, other: str) -> str | None:
    """Problem-solving verification: repeat another attempt at the question and compare its answer with this one."""
    del question
    other_answer = boxed_answer(other)
    if other_answer is None:
        return None
    working = other[: other.rindex("\\boxed{")].rstrip()
    agrees = normal_answer(other_answer) == normal_answer(answer)
    comparison = f"{answer}={other_answer}" if agrees else f"{answer}!={other_answer}"
    return conclude(f"{working}\n{comparison}".lstrip(), agrees)


def normal_answer(answer: str) -> str:
    """An answer without thousands separators, currency and outer space, so that equal numbers compare equal."""
    return answer.replace(",", "").replace("$", "").replace(" ", "").removesuffix(".0")
