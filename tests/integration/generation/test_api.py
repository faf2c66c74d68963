"""The registry, other kinds of policies, deadlines, overload and chat."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse

from shared.artifacts import hash_directory
from shared.contracts.policies import PolicyKind
from tests.integration.generation.conftest import CAMPAIGN, World, new_id, write_weights
from tests.integration.generation.fake_engine import served

pytestmark = pytest.mark.integration


async def post_policy(world: World, name: str, directory: Path, **fields: object) -> httpx.Response:
    body = {"campaign_id": str(CAMPAIGN), "name": name, "kind": "checkpoint", "uri": str(directory)}
    return await world.http.post("/v1/policies", json=body | {"content_hash": hash_directory(directory)} | fields)


async def test_registering_twice_gives_the_same_policy_and_other_content_is_a_conflict(world: World) -> None:
    first = write_weights(world.directory / "one", "one")
    second = write_weights(world.directory / "two", "two")
    answers = await asyncio.gather(*(post_policy(world, "p", first) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    conflict = await post_policy(world, "p", second)
    assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "policy_exists")
    listed = (await world.http.get("/v1/policies", params={"campaign": str(CAMPAIGN)})).json()
    assert [policy["name"] for policy in listed] == ["p"]


async def test_weights_that_could_run_code_or_are_damaged_or_do_not_fit_are_refused(world: World) -> None:
    pickled = write_weights(world.directory / "pickled", "x")
    (pickled / "pytorch_model.bin").write_bytes(b"")
    truncated = write_weights(world.directory / "truncated", "x")
    (truncated / "model.safetensors").write_bytes((truncated / "model.safetensors").read_bytes()[:-1])
    bigger = write_weights(world.directory / "bigger", "x", rows=3)
    empty = write_weights(world.directory / "empty", "x")
    (empty / "model.safetensors").unlink()
    for directory, status, code in (
        (pickled, 422, "unsafe_weights"),
        (truncated, 409, "damaged_weights"),
        (bigger, 409, "architecture_mismatch"),
        (empty, 422, "incomplete_weights"),
    ):
        answer = await post_policy(world, directory.name, directory)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    wrong = await post_policy(world, "wrong", bigger, content_hash="0" * 64)
    assert wrong.json()["error"]["code"] == "artifact_damaged"
    lonely = await post_policy(world, "lonely", bigger, kind="adapter")
    assert lonely.json()["error"]["code"] == "base_missing"


async def test_the_engine_tells_its_base_weights(world: World) -> None:
    info = (await world.http.get("/v1/engine")).json()
    assert info["content_hash"] == hash_directory(world.directory / "base")
    assert info["uri"] == str(world.directory / "base")
    assert (info["replicas"], info["ready_replicas"], info["max_model_tokens"]) == (1, 1, 64)


async def test_a_deadline_ends_the_prompt_here_and_in_the_engine(world: World) -> None:
    base = await world.register("base", PolicyKind.BASE)
    await world.text(base)
    world.engine.hold.clear()
    lines = await world.sample(base, "a", "b", deadline_s=0.3)
    assert {line.error for line in lines.values()} == {"deadline"}
    while world.engine.aborted < 2:
        await asyncio.sleep(0.01)


async def test_a_client_that_leaves_aborts_its_prompts_in_the_engine(world: World) -> None:
    base = await world.register("base", PolicyKind.BASE)
    world.engine.hold.clear()
    asked = asyncio.create_task(world.sample(base, "a", "b", "c"))
    while world.engine.running < 3:
        await asyncio.sleep(0.01)
    asked.cancel()
    while world.engine.aborted < 3:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("overrides", [{"prompts_in_flight": 1, "prompts_waiting": 2}])
async def test_too_many_waiting_prompts_are_sent_back_with_retry_after(world: World) -> None:
    base = await world.register("base", PolicyKind.BASE)
    world.engine.hold.clear()
    first = asyncio.create_task(world.sample(base, "a", "b"))
    while not world.engine.running:
        await asyncio.sleep(0.01)
    body = {"policy_id": str(base.id), "prompts": [{"id": "c", "text": "c"}, {"id": "d", "text": "d"}]}
    refused = await world.http.post("/v1/samples", json=body)
    assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS
    assert int(refused.headers["Retry-After"]) > 0
    world.engine.hold.set()
    assert all(line.error is None for line in (await first).values())


async def test_a_prompt_without_room_for_an_answer_is_named(world: World) -> None:
    base = await world.register("base", PolicyKind.BASE)
    lines = await world.sample(base, "x" * 100, "short")
    assert (lines["x" * 100].error, lines["short"].error) == ("prompt-too-long", None)


async def test_an_unknown_policy_is_not_found(world: World) -> None:
    body = {"policy_id": new_id(), "prompts": [{"id": "a", "text": "a"}]}
    assert (await world.http.post("/v1/samples", json=body)).status_code == httpx.codes.NOT_FOUND


async def test_reference_policies_repeat_the_solution_that_came_with_the_question(world: World) -> None:
    body = {"campaign_id": str(CAMPAIGN), "name": "teacher", "kind": "reference"}
    policy = (await world.http.post("/v1/policies", json=body)).json()
    prompts = [{"id": "a", "text": "1+1", "reference_solution": "\\boxed{2}"}, {"id": "b", "text": "2+2"}]
    answer = await world.http.post("/v1/samples", json={"policy_id": policy["id"], "prompts": prompts})
    lines = {line["id"]: line for line in map(json.loads, answer.text.splitlines())}
    assert lines["a"]["samples"] == [{"text": "\\boxed{2}", "finish_reason": "reference"}]
    assert lines["b"]["error"] == "no-reference-solution"


async def test_external_policies_answer_and_a_dead_url_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HEADWATER_TEACHER_KEY", "secret")
    app = FastAPI()
    seen: list[dict[str, object]] = []

    @app.post("/v1/chat/completions")
    async def chat(body: dict[str, object]) -> dict[str, object]:
        seen.append(body)
        return {"choices": [{"message": {"content": "four"}, "finish_reason": "stop"}]}

    async with served(app) as teacher:
        fields = {
            "kind": "external",
            "uri": teacher.url,
            "model": "big",
            "api_key_env": "HEADWATER_TEACHER_KEY",
            "content_hash": "",
        }
        policy = (await post_policy(world, "teacher", world.directory / "base", **fields)).json()
        body = {"policy_id": policy["id"], "prompts": [{"id": "a", "text": "2+2"}], "n": 3}
        line = json.loads((await world.http.post("/v1/samples", json=body)).text)
        assert [sample["text"] for sample in line["samples"]] == ["four"] * 3
        assert [(asked["model"], asked["n"]) for asked in seen] == [("big", 3), ("big", 2), ("big", 1)]
    line = json.loads((await world.http.post("/v1/samples", json=body)).text)
    assert line["error"] == "external-unavailable"
    assert teacher_url(fields) in line["message"]
    live = await world.http.post(f"/v1/policies/{policy['id']}/live")
    assert (live.status_code, live.json()["error"]["code"]) == (503, "external_unavailable")


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"no gzip", {"Content-Encoding": "gzip"}),
        (b'{"a":' * 100_000, {}),
        (b'{"choices": [{"message": {"content": "\\ud800"}, "finish_reason": "stop"}]}', {}),
        (b'{"choices": [{"message": {"content": "4"}, "finish_reason": "stop", "score": NaN}]}', {}),
    ],
    ids=["gzip", "deep", "surrogate", "nan"],
)
async def test_an_external_server_that_answers_rubbish_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch, content: bytes, headers: dict[str, str]
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def chat() -> Response:
        return Response(content, headers=headers)

    async with served(app) as teacher:
        fields = {"kind": "external", "uri": teacher.url, "model": "big", "content_hash": ""}
        policy = (await post_policy(world, "teacher", world.directory / "base", **fields)).json()
        body = {"policy_id": policy["id"], "prompts": [{"id": "a", "text": "2+2"}], "n": 1}
        line = json.loads((await world.http.post("/v1/samples", json=body)).text)
        assert line["error"] in ("external-unavailable", "external-invalid-answer")
        asked = {"model": policy["id"], "messages": [{"role": "user", "content": "hi"}]}
        assert (await world.http.post("/v1/chat/completions", json=asked)).status_code == 503


async def test_an_external_server_that_never_ends_is_left(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("services.generation.service.chat.TIMEOUT_S", 0.3)
    monkeypatch.setattr("services.generation.client.external.CHECK_TIMEOUT_S", 0.3)
    app = FastAPI()

    async def drops() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    @app.get("/v1/models")
    @app.post("/v1/chat/completions")
    async def chat() -> StreamingResponse:
        return StreamingResponse(drops())

    async with served(app) as teacher:
        fields = {"kind": "external", "uri": teacher.url, "model": "big", "content_hash": ""}
        policy = (await post_policy(world, "teacher", world.directory / "base", **fields)).json()
        asked = {"model": policy["id"], "messages": [{"role": "user", "content": "hi"}]}
        answer = await world.http.post("/v1/chat/completions", json=asked)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "external_timeout")
        answer = await world.http.post("/v1/chat/completions", json=asked | {"stream": True})
        assert "external_timeout" in answer.text
        live = await world.http.post(f"/v1/policies/{policy['id']}/live")
        assert (live.status_code, live.json()["error"]["code"]) == (503, "external_unavailable")


async def test_a_client_that_leaves_a_chat_aborts_it_in_the_engine(world: World) -> None:
    base = await world.register("base", PolicyKind.BASE)
    world.engine.hold.clear()
    body = {"model": str(base.id), "messages": [{"role": "user", "content": "hi"}]}
    asked = asyncio.create_task(world.http.post("/v1/chat/completions", json=body))
    while not world.engine.running:
        await asyncio.sleep(0.01)
    asked.cancel()
    while not world.engine.aborted:
        await asyncio.sleep(0.01)


def teacher_url(fields: dict[str, str]) -> str:
    return fields["uri"]


async def test_chat_by_name_and_the_list_of_models(world: World) -> None:
    other = await world.register("other", PolicyKind.CHECKPOINT)
    body = {"model": "other", "messages": [{"role": "user", "content": "hi"}], "seed": 1}
    answer = (await world.http.post("/v1/chat/completions", json=body)).json()
    assert (answer["model"], answer["choices"][0]["message"]["content"]) == ("other", "other")
    models = (await world.http.get("/v1/models")).json()["data"]
    assert [model["id"] for model in models] == [str(other.id)]
    missing = await world.http.post("/v1/chat/completions", json=body | {"model": "nobody"})
    assert missing.status_code == httpx.codes.NOT_FOUND


async def test_weights_from_elsewhere_and_hashes_that_are_none_are_refused(world: World, tmp_path_factory) -> None:  # noqa: ANN001
    elsewhere = write_weights(tmp_path_factory.mktemp("elsewhere") / "x", "x")
    for uri in (str(elsewhere), f"{world.directory}/../{elsewhere.parent.name}/x", f"file://{elsewhere}", "http://x/y"):
        answer = await post_policy(world, "p", elsewhere, uri=uri)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "weights_elsewhere"), answer.text
    for wrong in ("../../x", "A" * 64, "0" * 63):
        assert (await post_policy(world, "p", elsewhere, content_hash=wrong)).status_code == 422


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://host/v1",
        "http://",
        "http://[::1",
        "http://host:99999/v1",
        "http://host:x/v1",
        "http://host/v1?a=b",
        "http://host/v1#a",
        "http://me:secret@host/v1",
        "http://host\n/v1",
        "http://ho\u00e9st/v1",
        "http://127.0.0.1:8401/v1",
        "http://LOCALHOST:8401",
        "http://[::1]:8401/v1",
        "/a/file",
    ],
)
async def test_addresses_that_no_external_server_has_are_refused(world: World, uri: str) -> None:
    body = {"campaign_id": str(CAMPAIGN), "name": "t", "kind": "external", "model": "m", "uri": uri}
    answer = await world.http.post("/v1/policies", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "address_invalid"), answer.text


async def test_the_engine_is_no_external_server(world: World) -> None:
    body = {"campaign_id": str(CAMPAIGN), "name": "t", "kind": "external", "model": "m", "uri": world.engine_server.url}
    answer = await world.http.post("/v1/policies", json=body)
    assert answer.json()["error"]["code"] == "address_invalid"


@pytest.mark.parametrize(
    ("field", "value"),
    [("api_key_env", "HEADWATER_DATABASE_URL"), ("uri", "http://h/\0"), ("model", "m\0"), ("model", "\ud800")],
)
async def test_a_policy_cannot_send_out_other_secrets_nor_hold_odd_characters(
    world: World, field: str, value: str
) -> None:
    body = {"campaign_id": str(CAMPAIGN), "name": "t", "kind": "external", "model": "m", "uri": "http://host/v1"}
    content = json.dumps(body | {field: value})
    answer = await world.http.post("/v1/policies", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["details"][0]["field"]) == (422, field), answer.text


@pytest.mark.parametrize("odd", ['"model": "a\\u0000"', '"model": "\\ud800"', '"x": "\\ud800"', '"temperature": NaN'])
async def test_chat_refuses_what_cannot_be_sent_on(world: World, odd: str) -> None:
    await world.register("other", PolicyKind.CHECKPOINT)
    content = f'{{"model": "other", "messages": [{{"role": "user", "content": "hi"}}], {odd}}}'
    headers = {"Content-Type": "application/json"}
    answer = await world.http.post("/v1/chat/completions", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "body_invalid"), answer.text
    escaped = content.replace(odd, '"x": "\\\\u0000"')
    assert (await world.http.post("/v1/chat/completions", content=escaped, headers=headers)).is_success
