"""One item: a refusal names the field in a form that every report can carry, whatever was sent."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pool.service.items import read
from services.pool.service.lines import Item
from services.verification.service import IN_PROCESS
from shared.answers import is_readable
from shared.contracts.questions import QuestionIn, QuestionKind, Refusal, RefusalReason
from shared.contracts.verdicts import UnscoredReason


@pytest.mark.parametrize(
    "value",
    [
        {"question": "1", "answer": "1", "\ud800": 1},
        {"question": "1", "answer": "1", "\0": 1},
        {"question": "1", "answer": "1", "x" * 100_000: 1},
        {"question": "1", "answer": "1", "x" * 100_000 + "\0": 1},
        {"question": "1", "kind": "\ud800" * 100_000},
        {"question": "1", "kind": ["x" * 100_000]},
        {"question": "\ud800", "answer": "1"},
        {"question": "1", "answer": "1", **{str(number): 0 for number in range(90_000)}},
        {"question": "1", "answer": "1", "kind": "\ud800"},
    ],
)
def test_a_refusal_is_small_and_can_be_written(value: dict[str, object]) -> None:
    refusal = read(Item(1, json.dumps(value).encode()))
    assert isinstance(refusal, Refusal)
    assert len(refusal.model_dump_json().encode()) < 1000


@pytest.mark.parametrize(
    ("kind", "answer", "wanted"),
    [
        ("numeric", "about ten", "a number"),
        ("numeric", r"\boxed{7}", "a number"),
        ("numeric", "1/0", "a number"),
        ("choice", "the first one", "the letter or digit of a choice"),
        ("exact", "...", "a text that is more than punctuation"),
    ],
)
def test_a_reference_that_nothing_can_be_judged_against_is_refused(kind: str, answer: str, wanted: str) -> None:
    refusal = read(Item(7, json.dumps({"question": "q", "answer": answer, "kind": kind}).encode()))
    assert isinstance(refusal, Refusal)
    assert (refusal.line, refusal.field, refusal.reason) == (7, "answer", RefusalReason.REFERENCE_UNPARSEABLE)
    assert f"of kind '{kind}' can be judged against; write {wanted}" in refusal.message


@pytest.mark.parametrize(
    ("kind", "answer"),
    [("numeric", "$1,234.50"), ("numeric", "-1/3"), ("choice", "(B) Rome"), ("exact", "Paris"), ("math", "about ten")],
)
def test_other_references_are_taken_as_they_are(kind: str, answer: str) -> None:
    question = read(Item(1, json.dumps({"question": "q", "answer": answer, "kind": kind}).encode()))
    assert isinstance(question, QuestionIn)
    assert (question.kind, question.answer) == (QuestionKind(kind), answer)


@given(st.sampled_from(sorted(IN_PROCESS)), st.text(max_size=20) | st.from_regex(r"[-(]?[0-9a-d][).,/0-9]{0,4}"))
def test_what_is_taken_can_be_judged(kind: QuestionKind, answer: str) -> None:
    judged = IN_PROCESS[kind](answer, "1").reason is not UnscoredReason.REFERENCE_UNPARSEABLE
    assert is_readable(kind, answer) is judged
