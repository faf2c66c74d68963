"""References that are JSON: what is read, and what is not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.answers import is_readable
from shared.contracts.questions import QuestionKind
from shared.contracts.references import MAX_TESTS, code_tests, rubric


def test_code_by_tests_or_by_assertions():
    tests = code_tests('{"tests": [{"input": "2 3", "output": "5"}], "time_limit_s": 2}')
    assert tests is not None
    assert (tests.tests[0].input, tests.tests[0].output, tests.time_limit_s) == ("2 3", "5", 2)
    assertions = code_tests('{"assertions": ["assert f(2) == 4"]}')
    assert assertions is not None
    assert assertions.assertions == ("assert f(2) == 4",)


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "5",
        "[]",
        "{}",
        '{"tests": []}',
        '{"tests": [{"input": "2"}]}',
        '{"tests": [{"input": "2", "output": "5"}], "assertions": ["assert True"]}',
        '{"tests": [{"input": "2", "output": "5"}], "time_limit_s": 0}',
        '{"assertions": ["assert True"], "unknown": 1}',
        json.dumps({"assertions": ["assert True"] * (MAX_TESTS + 1)}),
    ],
)
def test_code_that_cannot_be_judged_against(reference: str):
    assert code_tests(reference) is None
    assert not is_readable(QuestionKind.CODE, reference)


def test_rubric():
    plain, planning = rubric('{"criteria": "names a date"}'), rubric('{"criteria": "x", "task_type": "planning"}')
    assert plain is not None
    assert planning is not None
    assert (plain.task_type, planning.task_type) == ("general", "planning")
    for reference in ("names a date", '{"criteria": ""}', '{"criteria": "x", "task_type": "Not a name"}'):
        assert rubric(reference) is None
        assert not is_readable(QuestionKind.RUBRIC, reference)


@given(st.text())
def test_any_text_is_read_or_not(reference: str):
    assert code_tests(reference) is None
    assert rubric(reference) is None
