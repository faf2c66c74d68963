"""`headwater retract` against a gateway that answers as told."""

import io
import json
from uuid import UUID, uuid4

import httpx
from rich.console import Console

from services.local.client import Gateway
from services.local.commands.retraction import show_retractions
from shared.contracts.lineage import Retraction, Retractions, RetractionStatus, TouchedPolicy

POLICY = TouchedPolicy(policy_id=uuid4(), name="rl", version=4, run_id=None, step=8, inherited=False)


def test_a_source_is_asked_for_until_nothing_is_left_and_ids_in_pieces():
    bodies = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/questions/retract"
        bodies.append(json.loads(request.content))
        return httpx.Response(200, content=Retractions(items=(), more=len(bodies) < 3).model_dump_json())

    with Gateway("http://gateway", "hw_key", httpx.MockTransport(answer)) as api:
        assert len(list(api.retract_source("licence", UUID(int=1), "web"))) == 3
        assert {(body["source"], body["campaign"]) for body in bodies} == {("web", str(UUID(int=1)))}
        assert len(list(api.retract("wrong", [uuid4() for _ in range(1500)]))) == 2
    assert [len(body["ids"]) for body in bodies[3:]] == [1000, 500]


def test_what_was_touched_is_counted_by_policy_and_what_is_missing_is_named():
    missing = uuid4()
    items = (
        Retraction(question_id=uuid4(), status=RetractionStatus.RETRACTED, dropped_groups=2, policies=(POLICY,)),
        Retraction(question_id=uuid4(), status=RetractionStatus.ALREADY, policies=(POLICY,)),
        Retraction(question_id=missing, status=RetractionStatus.NOT_FOUND),
    )
    console = Console(file=io.StringIO(), width=200)
    assert show_retractions(console, [Retractions(items=items, more=False)]) == 1
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1 retracted, 1 already, 1 not found; 2 groups" in shown
    assert f"there is no question {missing}" in shown
    assert f"policy rl (version 4, {POLICY.policy_id}) by 2 of them" in shown
