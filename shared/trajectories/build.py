"""Training trajectories with their segment masks: from a teacher (SFT-0) and from the policy's own attempts (SFT-1).

Pure functions; every choice comes from the `Random` that is passed in. Invariants: no wrong attempt is trained, every verification is,
and each one's verdict is the truth about its attempt; a question that gives no trajectory has a named reason.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from shared.trajectories.domains.domain import Domain, normal_answer
from shared.trajectories.rounds import PUBLISHED_TABLE, RoundsTable, rounds_for
from shared.trajectories.segments import (
    PROTOCOL_PHRASES,
    ClaimedVerdict,
    Round,
    Trajectory,
    assemble,
    boxed_answer,
    claimed_verdict,
)


class DropReason(StrEnum):
    """Why a question gave no trajectory."""

    NO_ATTEMPTS = "no_attempts"
    NO_CORRECT_ATTEMPT = "no_correct_attempt"
    NO_SOLUTION = "no_solution"
    SOLUTION_DISAGREES = "solution_disagrees"
    NO_SLIP = "no_slip"
    NO_TRUE_VERIFICATION = "no_true_verification"
    TOO_FEW_WRONG_ATTEMPTS = "too_few_wrong_attempts"
    NOT_DRAWN = "not_drawn"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One judged solve segment: its text without leading phrase, its answer, and whether that is right."""

    text: str
    answer: str
    correct: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """A check of one answer, ending in a verdict sentence. It may be wrong: the builder drops those."""

    answer: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """A trajectory to train on, with one mask bit a segment: 1 = trained. The end token shares the last segment's bit."""

    trajectory: Trajectory
    segment_mask: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TeacherQuestion:
    """A question of the tiny pool; `solution`: a verified one, whose answer the domain's own must have."""

    question: str
    solution: str | None = None


def teacher_trajectory(question: TeacherQuestion, domain: Domain, rounds: int, rng: Random) -> Example | DropReason:
    """One trajectory of that many rounds: all attempts but the last are slips with different answers."""
    solution = domain.solve(question.question, question.solution)
    answer = boxed_answer(solution) if solution is not None else None
    if solution is None or answer is None:
        return DropReason.NO_SOLUTION
    if question.solution is not None and normal_answer(boxed_answer(question.solution) or "") != normal_answer(answer):
        return DropReason.SOLUTION_DISAGREES
    wrong: dict[str, Attempt] = {}
    for _ in range(8 * rounds):
        if len(wrong) == rounds - 1:
            break
        text = domain.slip(solution, rng)
        slipped = boxed_answer(text) if text is not None else None
        if text is not None and slipped is not None and slipped != answer:
            wrong.setdefault(slipped, Attempt(text, slipped, correct=False))
    if len(wrong) < rounds - 1:
        return DropReason.NO_SLIP
    attempts = [*wrong.values(), Attempt(solution, answer, correct=True)]
    checked: list[Round] = []
    for attempt in attempts:
        text = domain.confirm(question.question, attempt.answer) or domain.recompute(
            question.question, attempt.answer, solution
        )
        if text is None or not verdict_is_true(text, attempt.correct):
            return DropReason.NO_TRUE_VERIFICATION
        checked.append(Round(attempt.text, text))
    return _example(checked, attempts)


def s2r_trajectory(
    attempts: Sequence[Attempt],
    verifications: Iterable[Verification],
    rng: Random,
    table: RoundsTable = PUBLISHED_TABLE,
) -> Example | DropReason:
    """A trajectory from the policy's own attempts at one question (S²R, stage 0).

    The number of rounds follows from how many attempts are wrong. Distinct wrong attempts come first in random order, then one
    correct attempt; each is followed by a verification whose verdict is true, one per distinct answer.
    """
    if not attempts:
        return DropReason.NO_ATTEMPTS
    right = [attempt for attempt in attempts if attempt.correct and _is_plain(attempt.text)]
    if not right:
        return DropReason.NO_CORRECT_ATTEMPT
    true_by_answer = _true_verifications(attempts, verifications, rng)
    right = [attempt for attempt in right if attempt.answer in true_by_answer]
    if not right:
        return DropReason.NO_TRUE_VERIFICATION
    rule = rounds_for(sum(not attempt.correct for attempt in attempts), len(attempts), table)
    wrong = _distinct_wrong(attempts, true_by_answer, rng)
    rounds = min(rule.rounds, len(wrong) + 1)
    if rounds < rule.fewest_rounds:
        return DropReason.TOO_FEW_WRONG_ATTEMPTS
    if rng.random() >= (rule.keep_probability if rounds == rule.rounds else rule.fallback_keep_probability):
        return DropReason.NOT_DRAWN
    chosen = [*wrong[: rounds - 1], rng.choice(right)]
    return _example([Round(attempt.text, true_by_answer[attempt.answer]) for attempt in chosen], chosen)


def verdict_is_true(verification: str, correct: bool) -> bool:
    """Whether a verification ends in the verdict that is the truth about its attempt. *Unverifiable* is never true."""
    return claimed_verdict(verification) is (ClaimedVerdict.CORRECT if correct else ClaimedVerdict.INCORRECT)


def segment_mask(attempts: Sequence[Attempt]) -> tuple[int, ...]:
    """One bit a segment of `s1, v1, s2, v2, …`: correct solves and all verifications are trained (0,1,0,1,1,1 / 1,1)."""
    return tuple(bit for attempt in attempts for bit in (int(attempt.correct), 1))


def _example(rounds: Sequence[Round], attempts: Sequence[Attempt]) -> Example:
    return Example(assemble(rounds), segment_mask(attempts))


def _is_plain(text: str) -> bool:
    """Whether a text can be assembled: it has an answer and no protocol phrase inside."""
    return boxed_answer(text) is not None and not any(phrase in text for phrase in PROTOCOL_PHRASES)


def _true_verifications(
    attempts: Sequence[Attempt], verifications: Iterable[Verification], rng: Random
) -> dict[str, str]:
    """One verification per distinct answer, drawn from those whose verdict is the truth about it."""
    truth = {attempt.answer: attempt.correct for attempt in attempts}
    candidates: dict[str, list[str]] = {}
    for verification in verifications:
        answer, text = verification.answer, verification.text.strip()
        if answer not in truth or not verdict_is_true(text, truth[answer]):
            continue
        if not any(phrase in text[: text.rindex("Therefore,")] for phrase in PROTOCOL_PHRASES):
            candidates.setdefault(answer, []).append(text)
    return {answer: rng.choice(texts) for answer, texts in candidates.items()}


def _distinct_wrong(attempts: Sequence[Attempt], verified: dict[str, str], rng: Random) -> list[Attempt]:
    """Wrong attempts with different answers that have a verification, in random order."""
    wrong = [attempt for attempt in attempts if not attempt.correct and _is_plain(attempt.text)]
    rng.shuffle(wrong)
    return list({attempt.answer: attempt for attempt in wrong if attempt.answer in verified}.values())
