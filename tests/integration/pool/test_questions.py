"""Questions come in line by line; what is refused says why, and the rest goes in."""

import json
from typing import Any

import pytest

from tests.integration.pool.client import PoolClient

pytestmark = pytest.mark.integration


async def test_bad_lines_are_refused_by_number_and_the_rest_goes_in(pool: PoolClient):
    good = {"question": "What is 1+1?", "answer": "2"}
    lines = [
        json.dumps(good).encode(),
        b"{not json",
        b'{"question": "caf\xe9", "answer": "1"}',
        b'{"question": "a\\u0000b", "answer": "1"}',
        b'{"question": "a\x00b", "answer": "1"}',
        b'{"question": "  \\n ", "answer": "1"}',
        b'{"question": "no answer"}',
        b'{"question": "q", "answer": "1", "colour": "red"}',
        b"[1, 2]",
        b"",
        b'{"question": "' + b"x" * 10_000_000 + b'", "answer": "1"}',
        b'{"question": "lone \\ud800 surrogate", "answer": "1"}',
        json.dumps(good | {"question": "What  is\n1+1? "}).encode(),
        json.dumps(good | {"question": "last, without a line break"}).encode(),
    ]
    report = await pool.ask(
        "POST",
        "/v1/questions",
        params={"campaign": pool.campaign},
        content=b"\n".join(lines),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert (report["accepted"], report["duplicate"], report["refused"]) == (2, 1, 10)
    assert [(refusal["line"], refusal["reason"]) for refusal in report["refusals"]] == [
        (2, "invalid_json"),
        (3, "invalid_utf8"),
        (4, "nul_character"),
        (5, "nul_character"),
        (6, "blank"),
        (7, "invalid_field"),
        (8, "invalid_field"),
        (9, "not_a_mapping"),
        (11, "too_large"),
        (12, "invalid_field"),
    ]
    assert all(f"Item {refusal['line']} " in refusal["message"] for refusal in report["refusals"])
    assert (await pool.pools())["train"] == 2


async def test_a_first_line_that_is_an_array_takes_no_other_with_it(pool: PoolClient):
    good = [json.dumps({"question": f"What is {number}+1?", "answer": str(number + 1)}) for number in range(10)]
    report = await pool.ask(
        "POST",
        "/v1/questions",
        params={"campaign": pool.campaign},
        content="\n".join(['["oops"]', *good]),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert (report["accepted"], report["refused"]) == (10, 1)
    assert [(refusal["line"], refusal["reason"]) for refusal in report["refusals"]] == [(1, "not_a_mapping")]


async def test_json_list_object_and_file_say_the_same(pool: PoolClient):
    questions = [{"question": f'Q{number} [{{,\\"', "answer": "1"} for number in range(5)]
    where: dict[str, Any] = {"params": {"campaign": pool.campaign}}
    first = await pool.ask("POST", "/v1/questions", json=questions, **where)
    one = await pool.ask("POST", "/v1/questions", json=questions[0], **where)
    upload = await pool.ask("POST", "/v1/questions", files={"file": ("q.json", json.dumps(questions))}, **where)
    lines = "\n".join(map(json.dumps, questions))
    ndjson = await pool.ask("POST", "/v1/questions", files={"file": ("q.jsonl", lines)}, **where)
    assert (first["accepted"], one["duplicate"], upload["duplicate"], ndjson["duplicate"]) == (5, 1, 5, 5)
    listed = await pool.ask("GET", "/v1/questions", params={"campaign": pool.campaign, "limit": 3})
    rest = await pool.ask(
        "GET", "/v1/questions", params={"campaign": pool.campaign, "limit": 3, "after": listed["next"]}
    )
    assert [question["text"] for question in (*listed["items"], *rest["items"])] == [
        question["question"] for question in questions
    ]


async def test_unknown_campaign_type_and_form_are_named(pool: PoolClient):
    unknown = "00000000-0000-0000-0000-000000000000"
    await pool.ask("POST", "/v1/questions", 404, params={"campaign": unknown}, json=[])
    where: dict[str, Any] = {"params": {"campaign": pool.campaign}}
    answer = await pool.ask("POST", "/v1/questions", 415, content=b"x", headers={"Content-Type": "text/plain"}, **where)
    assert "application/x-ndjson" in answer["error"]["message"]
    await pool.ask("POST", "/v1/questions", 422, files={"not_a_file": (None, "x")}, **where)


async def test_an_eval_question_never_trains(pool: PoolClient):
    first = await pool.submit([{"question": "Both sides", "answer": "1"}])
    leak = await pool.submit([{"question": "Both  sides", "answer": "1", "split": "eval", "kind": "exact"}])
    again = await pool.submit([{"question": " Both sides", "answer": "1"}])
    assert (first["accepted"], leak["accepted"], again["accepted"]) == (1, 1, 0)
    assert [refusal["reason"] for refusal in again["refusals"]] == ["eval_leak"]
    counts = await pool.pools()
    assert (counts["train"], counts["eval"], counts["quarantined"], counts["candidate"]) == (0, 1, 1, 0)
    assert (await pool.order())["total"] == 0
    refused = await pool.order("rollout", 422, selection={"split": "eval"}, watermark_groups=1)
    assert refused["error"]["code"] == "eval_never_trains"


async def test_in_one_submission_the_eval_question_wins(pool: PoolClient):
    both = [{"question": "Same", "answer": "1"}, {"question": "Same", "answer": "1", "split": "eval"}]
    report = await pool.submit(both)
    assert (report["accepted"], report["refusals"][0]["line"], report["refusals"][0]["reason"]) == (1, 1, "eval_leak")


async def test_another_answer_to_a_stored_question_is_refused_and_the_same_one_is_a_duplicate(pool: PoolClient):
    await pool.submit([{"question": "Stored", "answer": "14"}])
    report = await pool.submit(
        [
            {"question": " Stored ", "answer": " 14"},
            {"question": "Stored", "answer": "15"},
            {"question": "New", "answer": "1"},
            {"question": "New", "answer": "2"},
            {"question": "Stored", "answer": "15", "kind": "numeric"},
        ]
    )
    assert (report["accepted"], report["duplicate"], report["refused"]) == (2, 1, 2)
    assert [(refusal["line"], refusal["field"], refusal["reason"]) for refusal in report["refusals"]] == [
        (2, "answer", "conflict"),
        (4, "answer", "conflict"),
    ]
    assert report["refusals"][0]["message"].startswith("Item 2 is stored already with the answer '14'")
    stored = await pool.execute("SELECT answer FROM pool.questions ORDER BY position")
    assert [row.answer for row in stored] == ["14", "1", "15"]
    [(counted,)] = await pool.execute("SELECT sum(value) FROM pool.counters WHERE name = 'refused:conflict'")
    assert counted == 2


async def test_thousands_go_in_and_counters_equal_the_rows(pool: PoolClient):
    assert (await pool.submit(1500))["accepted"] == 1500
    assert (await pool.submit(1600))["duplicate"] == 1500
    [(rows,)] = await pool.execute("SELECT count(*) FROM pool.questions")
    assert (await pool.pools())["train"] == rows == 1600
