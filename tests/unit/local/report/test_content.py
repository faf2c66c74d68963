"""The report as plain data, and what is asked of the gateway for it."""

from uuid import UUID

import httpx
import pytest

from services.local.client import Gateway
from services.local.errors import LocalError
from services.local.report.content import campaign_content, run_content
from shared.contracts.runs import RunList, RunState
from tests.unit.local import samples
from tests.unit.local.samples import NUMBER

RUNS = (samples.run("sft"), samples.run("rl", key="by-hand", id=UUID(int=7), state=RunState.QUEUED))


def gateway(asked: list[str]) -> Gateway:
    """Knows one campaign and its two runs, of which the second has logged nothing."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url.copy_with(query=None).path))
        if request.url.path.endswith("/metrics"):
            logged = samples.points(3) if str(NUMBER) in request.url.path else []
            return httpx.Response(200, content=f"[{','.join(point.model_dump_json() for point in logged)}]")
        if request.url.path == "/v1/runs":
            assert request.url.params["campaign"] == str(NUMBER)
            return httpx.Response(200, content=RunList(items=RUNS).model_dump_json())
        found = samples.report() if request.url.path.endswith("/report") else RUNS[0]
        return httpx.Response(200, content=found.model_dump_json())

    return Gateway("http://gateway", "hw_key", httpx.MockTransport(answer))


def test_metrics_are_flat_with_their_intervals_and_null_where_nothing_was_counted():
    content = samples.content()
    base, sft_0 = content["stages"]
    assert (base["stage"], base["policy"], base["n"], base["final_accuracy"]) == ("base", "base-0", 400, 0.7)
    assert base["final_accuracy_interval"] == [0.7 - 0.05, 0.7 + 0.05]
    assert base["error_recall"] is None
    assert base["error_recall_interval"] is None
    assert base["by_level"]["1"]["final_accuracy"] == 0.9
    assert sft_0["final_accuracy"] is None
    assert sft_0["n"] == 0
    assert content["timeline"][0] == {
        "name": "teach",
        "status": "done",
        "done": 600,
        "total": 600,
        "unit": "questions",
        "seconds": 60.0,
    }


def test_a_campaign_has_all_its_runs_also_those_without_a_stage_or_a_point():
    asked: list[str] = []
    with gateway(asked) as api:
        runs = campaign_content(api, NUMBER)["runs"]
    assert [(run["key"], run["steps_logged"]) for run in runs] == [("sft", [1, 2, 3]), ("by-hand", [])]
    assert asked[-2:] == [f"/v1/runs/{NUMBER}/metrics", f"/v1/runs/{UUID(int=7)}/metrics"]


@pytest.mark.parametrize(("run", "campaign"), [(str(NUMBER), None), ("sft", NUMBER), (str(NUMBER), NUMBER)])
def test_a_run_is_found_by_its_id_or_in_its_campaign_by_its_key(run: str, campaign: UUID | None):
    with gateway([]) as api:
        content = run_content(api, run, campaign)
    assert [found["key"] for found in content["runs"]] == ["sft"]
    assert "campaign" not in content


@pytest.mark.parametrize(
    ("campaign", "sentence"), [(None, "'rl' is no id of a run"), (NUMBER, "no run 'rl'; its runs: sft, by-hand")]
)
def test_a_run_that_is_not_there_is_named(campaign: UUID | None, sentence: str):
    with gateway([]) as api, pytest.raises(LocalError, match=sentence):
        run_content(api, "rl", campaign)
