"""The command line against a gateway that answers as told: what goes wrong is a sentence."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from services.local import client
from services.local.client import Gateway, UnreachableError
from services.local.errors import LocalError
from tests.unit.local.samples import NUMBER, campaign, points, report


def gateway(answer: Callable[[httpx.Request], httpx.Response]) -> Gateway:
    return Gateway("http://gateway", "hw_key", httpx.MockTransport(answer))


def test_requests_carry_the_key_and_answers_are_typed():
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == "Bearer hw_key"
        if request.url.path.endswith("/report"):
            return httpx.Response(200, content=report().model_dump_json())
        assert request.headers["Content-Type"] == "application/toml"
        assert tomllib.loads(request.content.decode()) == {"name": "tiny-seed0", "seed": 0}
        return httpx.Response(201, content=campaign().model_dump_json())

    with gateway(answer) as api:
        assert api.create_campaign('name = "tiny-seed0"\nseed = 0') == campaign()
        assert api.report(NUMBER) == report()


def test_a_refusal_is_shown_with_each_detail():
    details = [{"item": "recipe", "field": "rl.setps", "reason": "extra_forbidden", "message": "there is no such key"}]
    body = {"error": {"code": "invalid_request", "message": "The recipe is not valid.", "details": details}}
    with gateway(lambda _: httpx.Response(422, json=body)) as api, pytest.raises(LocalError) as error:
        api.create_campaign('name = "x"')
    assert str(error.value) == "The recipe is not valid.\n  recipe rl.setps: there is no such key"


def test_anything_else_is_still_one_sentence():
    with gateway(lambda _: httpx.Response(500, text="<html>")) as api, pytest.raises(LocalError, match="answered 500"):
        api.campaigns()
    with gateway(lambda _: httpx.Response(200, text="{}")) as api, pytest.raises(LocalError, match="does not know"):
        api.campaigns()

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with gateway(refuse) as api, pytest.raises(UnreachableError, match="http://gateway does not answer"):
        api.campaigns()


def test_a_campaign_is_found_by_name():
    with gateway(lambda _: httpx.Response(200, content=f"[{campaign().model_dump_json()}]")) as api:
        assert api.campaign("tiny-seed0").id == NUMBER
        with pytest.raises(LocalError, match="There is no campaign 'other'"):
            api.campaign("other")


def test_refusals_name_the_line_of_the_file(tmp_path: Path):
    path = tmp_path / "questions.ndjson"
    path.write_bytes(b"".join(b"\xff\n" if line in (7, 1500) else b"{}\n" for line in range(1, 2501)))

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.params["campaign"] == str(NUMBER)
        lines = request.content.splitlines()
        bad = [number for number, line in enumerate(lines, 1) if line == b"\xff"]
        refusals = [
            {"line": number, "reason": "invalid_utf8", "message": f"Item {number} is not UTF-8."} for number in bad
        ]
        counts = {"accepted": len(lines) - len(bad), "duplicate": 0, "refused": len(bad)}
        return httpx.Response(200, json=counts | {"refusals": refusals})

    with gateway(answer) as api:
        reports = list(api.submit(path, NUMBER))
    assert sum(part.accepted for part in reports) == 2498
    assert [refusal.line for part in reports for refusal in part.refusals] == [7, 1500]
    assert reports[1].refusals[0].message == "Item 1500 is not UTF-8."


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b'["oops"]\n{}\n', "application/x-ndjson"),
        (b'\n{}\n["oops"]\n', "application/x-ndjson"),
        (b'[{"a": 1}, {"a": 2}]', "application/json"),
        (b'\n [{"a": 1}, {"a": 2}]\n\n', "application/json"),
        (b'[{"a": 1},\n{"a": 2}]\n', "application/json"),
        (b"[" * 100_000 + b"\n]", "application/json"),
    ],
)
def test_only_a_whole_array_is_sent_as_one(tmp_path: Path, mark: bytes, content: bytes, media_type: str):
    path = tmp_path / "questions"
    path.write_bytes(mark + content)

    def answer(request: httpx.Request) -> httpx.Response:
        assert (request.headers["Content-Type"], request.content) == (media_type, content)
        return httpx.Response(200, json={"accepted": 2, "duplicate": 0, "refused": 0})

    with gateway(answer) as api:
        assert [part.accepted for part in api.submit(path, NUMBER)] == [2]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    with (
        gateway(lambda _: httpx.Response(500)) as api,
        pytest.raises(LocalError, match=r"missing\.ndjson cannot be read"),
    ):
        list(api.submit(tmp_path / "missing.ndjson", NUMBER))


def test_questions_are_read_page_by_page_and_no_further_than_asked():
    asked: list[dict[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(dict(request.url.params))
        number = len(asked)
        question: dict[str, object] = {
            "id": str(UUID(int=number)),
            "campaign_id": str(NUMBER),
            "text": f"Q{number}",
            "answer": "1",
        }
        question |= {"kind": "math", "split": "train", "domain": "text", "state": "hard", "tiny": False}
        return httpx.Response(200, json={"items": [question], "next": None if number == 3 else f"c{number}"})

    with gateway(answer) as api:
        assert [found.text for found in api.questions(NUMBER, 1, {"state": "hard"})] == ["Q1", "Q2", "Q3"]
    where = {"campaign": str(NUMBER), "limit": "1", "state": "hard"}
    assert asked == [where, where | {"after": "c1"}, where | {"after": "c2"}]


def test_points_are_read_page_by_page_to_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client, "POINTS_PAGE", 2)
    asked: list[dict[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == f"/v1/runs/{NUMBER}/metrics"
        asked.append(dict(request.url.params))
        later = [point for point in points(4) if point.step > int(request.url.params["after"])]
        return httpx.Response(200, content=f"[{','.join(point.model_dump_json() for point in later[:2])}]")

    with gateway(answer) as api:
        assert list(api.points(NUMBER)) == points(4)
    assert [page["after"] for page in asked] == ["-1", "1", "3"]
