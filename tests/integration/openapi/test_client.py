"""A client that is generated from the gateway's document is used against the real services."""

import importlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.integration.openapi.conftest import Apis

pytestmark = pytest.mark.integration
WAIT_S = 120  # on a busy machine
# What the generator does not know by itself is bytes to it.
CONFIGURATION = {
    "package_name_override": "headwater_client",
    "post_hooks": [],
    "content_type_overrides": {
        "application/x-ndjson": "application/octet-stream",
        "application/toml": "application/octet-stream",
        "application/vnd.apache.arrow.stream": "application/octet-stream",
        "application/vnd.apache.parquet": "application/octet-stream",
    },
}


def whole_document(apis: Apis) -> dict[str, Any]:
    """The document, once every service has answered the gateway."""
    while True:
        answer = httpx.get(f"{apis.urls['gateway']}/openapi.json", timeout=WAIT_S, trust_env=False)
        document: dict[str, Any] = answer.raise_for_status().json()
        if document["paths"].keys() >= {"/v1/campaigns", "/v1/questions", "/v1/policies", "/v1/runs"}:
            return document
        time.sleep(0.1)


@pytest.fixture
def generated(apis: Apis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports modules of the generated package by name."""
    (tmp_path / "document.json").write_text(json.dumps(whole_document(apis)))
    (tmp_path / "configuration.json").write_text(json.dumps(CONFIGURATION))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", "document.json", "--meta", "none"]
    command += ["--config", "configuration.json", "--output-path", "headwater_client", "--fail-on-warning"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda name: importlib.import_module(f"headwater_client.{name}")
    for name in [name for name in sys.modules if name.split(".")[0] == "headwater_client"]:
        del sys.modules[name]


@pytest.mark.timeout(600)
def test_a_campaign_its_questions_and_their_pages(apis: Apis, generated: Any):
    models = generated("models")
    patient = {"base_url": apis.urls["gateway"], "timeout": httpx.Timeout(WAIT_S)}
    client = generated("client").AuthenticatedClient(token=apis.key, **patient)
    campaign_in = models.CampaignIn.from_dict({"name": "generated", "recipe": {}})
    campaign = generated("api.campaigns.create_campaign").sync(client=client, body=campaign_in)
    assert isinstance(campaign.id, UUID), campaign

    texts = [f"Calculate {number}+1." for number in range(7)]
    questions = [models.QuestionIn(question=text, answer=str(at + 1)) for at, text in enumerate(texts)]
    submit = generated("api.questions.submit_questions").sync
    report = submit(client=client, body=questions[0], campaign=campaign.id)
    assert isinstance(report, models.IngestReport), report
    assert (report.accepted, report.refused) == (1, 0)
    lines = "\n".join(json.dumps(question.to_dict()) for question in questions)
    file = generated("types").File(payload=io.BytesIO(lines.encode()))
    report = submit(client=client, body=file, campaign=campaign.id)
    assert isinstance(report, models.IngestReport), report
    assert (report.accepted, report.duplicate) == (6, 1)

    list_questions = generated("api.questions.list_questions").sync
    listed, after = [], generated("types").UNSET
    while after is not None:
        page = list_questions(
            client=client, campaign=campaign.id, limit=3, after=after, state=models.QuestionState.CANDIDATE
        )
        listed += [question.text for question in page.items]
        after = page.next_
    assert listed == texts

    problem = list_questions(client=client, campaign=campaign.id, after="nonsense")
    assert isinstance(problem, models.ProblemBody)
    assert (problem.error.code, problem.error.details[0].field) == ("bad_cursor", "after")
    wrong = generated("client").AuthenticatedClient(token="hw_wrong", **patient)
    assert list_questions(client=wrong, campaign=campaign.id).error.code == "unauthorized"
