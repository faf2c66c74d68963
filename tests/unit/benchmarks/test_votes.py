"""Votes at equal tokens."""

import pytest

from benchmarks.votes import Ballot, answers_paid, is_elected_right, vote_accuracy

RIGHT, WRONG, UNREAD = Ballot("7", is_right=True), Ballot("8", is_right=False), Ballot(None, is_right=False)


@pytest.mark.parametrize(
    ("budget", "each", "paid"),
    [(80, 100, 1), (10, 100, 1), (149, 100, 1), (150, 100, 2), (260, 100, 3), (9000, 100, 8)],
)
def test_tokens_pay_for_the_nearest_number_of_answers(budget: float, each: float, paid: int):
    assert answers_paid(budget, each, at_most=8) == paid


@pytest.mark.parametrize(
    ("ballots", "is_right"),
    [
        ([RIGHT, WRONG, WRONG], False),
        ([WRONG, RIGHT, RIGHT], True),
        ([WRONG, RIGHT], False),
        ([UNREAD, UNREAD, RIGHT], True),
        ([UNREAD], False),
    ],
)
def test_the_most_frequent_answer_counts_and_of_equals_the_first(ballots: list[Ballot], *, is_right: bool):
    assert is_elected_right(ballots) is is_right


def test_no_answer_votes_twice():
    questions = [[RIGHT, WRONG, WRONG, WRONG, RIGHT], [RIGHT] * 5]
    assert vote_accuracy(questions, 1) == pytest.approx(7 / 10)
    assert vote_accuracy(questions, 2) == pytest.approx(3 / 4), "the fifth answer has nobody to vote with"
    assert vote_accuracy(questions, 5) == pytest.approx(1 / 2)
