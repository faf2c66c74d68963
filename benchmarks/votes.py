"""Majority votes: what a policy that verifies nothing makes of the tokens that another one spends on verifying.

The rule: answers are sampled, and of as many as the other policy's tokens pay for (the nearest whole number, one at least and all
that there are at most) the most frequent answer counts; of equally frequent ones the one that came first. Answers that nobody could read or
judge have no vote; with no vote at all the question is answered wrong.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ballot:
    """One sampled answer. `answer` None: it has no vote."""

    answer: str | None
    is_right: bool


def answers_paid(budget_tokens: float, tokens_an_answer: float, at_most: int) -> int:
    """How many answers of this mean length a budget pays for: the nearest whole number, half upwards."""
    return min(at_most, max(1, int(budget_tokens / tokens_an_answer + 0.5)))


def is_elected_right(ballots: Sequence[Ballot]) -> bool:
    """Whether the answer with most votes is right."""
    votes = Counter(ballot.answer for ballot in ballots if ballot.answer is not None)
    if not votes:
        return False
    [(elected, _)] = votes.most_common(1)  # of equally many the first, as Counter keeps the order
    return next(ballot.is_right for ballot in ballots if ballot.answer == elected)


def vote_accuracy(questions: Sequence[Sequence[Ballot]], voters: int) -> float:
    """The share of elections by `voters` answers that are right: a question's answers make as many as they can, none votes twice."""
    elections = [
        is_elected_right(ballots[start : start + voters])
        for ballots in questions
        for start in range(0, len(ballots) - voters + 1, voters)
    ]
    return sum(elections) / len(elections)
