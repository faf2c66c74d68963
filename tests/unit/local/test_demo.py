"""The demo against a gateway that answers as told."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from examples.demos import RECIPES
from services.local import orphans
from services.local.cli import app
from services.local.client import Gateway
from services.local.commands import demo
from services.local.directory import DataDirectory
from services.local.errors import LocalError
from services.local.rendering import terminal
from services.local.state import ProcessState, ProcessStatus, StackState, StackStatus
from shared.contracts.campaigns import Campaign, CampaignStatus
from shared.contracts.runs import RunList
from tests.unit.local.samples import campaign, report, run


@pytest.mark.parametrize("end", [CampaignStatus.SUCCEEDED, CampaignStatus.FAILED])
def test_a_failed_campaign_is_tried_again_and_only_success_is_written(tmp_path: Path, end: CampaignStatus):
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path.rpartition("/")[2])
        if request.url.path.endswith("/report"):
            return httpx.Response(200, content=report().model_dump_json())
        if request.url.path == "/v1/runs":
            return httpx.Response(200, content=RunList(items=(run("sft"),)).model_dump_json())
        if request.url.path.endswith("/metrics"):
            return httpx.Response(200, json=[])
        if request.url.path.endswith("/questions"):
            return httpx.Response(200, json={"accepted": 0, "duplicate": 1, "refused": 0})
        failed = campaign(CampaignStatus.FAILED).model_copy(update={"message": "the disk of the moon is full"})
        answered: Campaign = campaign(end) if request.url.path.endswith("/resume") else failed
        return httpx.Response(200, content=answered.model_dump_json())

    directory, output = DataDirectory.at(tmp_path), StringIO()
    questions = tmp_path / "questions.ndjson"
    questions.write_text("{}\n")
    console = terminal(output)
    with Gateway("http://gateway", "hw_key", httpx.MockTransport(answer)) as gateway:
        ended = demo.run_campaign(console, directory, gateway, RECIPES["tiny"], "tiny-seed0", 0, questions)
    assert asked == ["campaigns", "questions", "resume", "report", "runs", "metrics"]
    assert ended.status is end
    assert "had failed in sft-0; trying again. The reason was: the disk of the moon is full" in output.getvalue()
    assert "70.0 [65.0, 75.0]" in output.getvalue()
    written = [(tmp_path / f"report.{form}").exists() for form in ("json", "md", "png")]
    assert written == [end is CampaignStatus.SUCCEEDED] * 3


def test_a_campaign_of_another_version_of_the_recipe_needs_another_directory(tmp_path: Path):
    body = {"error": {"code": "campaign_exists", "message": "It exists: choose another name.", "details": []}}
    refuse = httpx.MockTransport(lambda _: httpx.Response(409, json=body))
    directory, console = DataDirectory.at(tmp_path), terminal(StringIO())
    with (
        Gateway("http://gateway", "hw_key", refuse) as gateway,
        pytest.raises(LocalError, match=r"another version of the recipe .* take another directory with --data-dir"),
    ):
        demo.run_campaign(console, directory, gateway, RECIPES["tiny"], "tiny-seed0", 0, tmp_path / "questions.ndjson")


def test_another_command_makes_another_questions_file(tmp_path: Path):
    demos = (RECIPES["tiny"], replace(RECIPES["tiny"], questions="examples.questions.arithmetic --count 1"))
    assert len({demo._questions_file(DataDirectory.at(tmp_path), one, "tiny-seed0") for one in demos}) == 2


@pytest.mark.parametrize(("model", "seed"), [("smollm2", 0), ("tiny", 1)])
def test_a_stack_with_another_model_or_seed_is_refused_and_left_alone(tmp_path: Path, model: str, seed: int):
    directory = DataDirectory.at(tmp_path)
    directory.create()
    (tmp_path / "demo").mkdir()
    demo._questions_file(directory, RECIPES["tiny"], "tiny-seed0").write_text(json.dumps({}))
    pid = os.getpid()
    StackState("r", pid, orphans.started_at(pid), model, seed, status=StackStatus.RUNNING).save(directory)
    result = CliRunner().invoke(app, ["demo", "--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert f"runs with the model '{model}', seed {seed}, and this demo needs 'tiny', seed 0" in result.stderr


def test_sigterm_ends_the_demo_as_ctrl_c_does_and_it_says_what_goes_on(tmp_path: Path):
    directory = DataDirectory.at(tmp_path)
    directory.create()
    (tmp_path / "demo").mkdir()
    demo._questions_file(directory, RECIPES["tiny"], "tiny-seed0").write_text(json.dumps({}))
    processes = {"postgres": ProcessState("postgres", ProcessStatus.READY)}
    pid = os.getpid()
    StackState("r", pid, orphans.started_at(pid), "tiny", processes=processes).save(directory)
    command = [sys.executable, "-m", "services.local.cli", "demo", "--data-dir", str(tmp_path)]
    waiting = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "   1 of 1 postgres\n"
    waiting.terminate()
    said, _ = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    last = "\nStopping. The same command goes on from here.\nleft running; stop it with `headwater down`\n"
    assert said.endswith(last)


def test_the_demo_says_which_ports_are_in_use(tmp_path: Path):
    directory, output, pid = DataDirectory.at(tmp_path), StringIO(), os.getpid()
    directory.create()
    urls = {"gateway": "http://127.0.0.1:9", "flower": "http://127.0.0.1:5555"}
    state = StackState("r", pid, orphans.started_at(pid), "tiny", status=StackStatus.RUNNING, urls=urls)
    state.ports = {"gateway": 9, "flower": 5555}
    state.save(directory)
    demo._wait(terminal(output), directory, None, RECIPES["tiny"], 0)
    assert output.getvalue().startswith("Port 8400 is in use: gateway listens on 9 this time.\ngateway http")


def test_the_demo_says_why_its_processes_may_stand_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "POLL_INTERVAL_S", 0)
    answers = [*(CampaignStatus.RUNNING for _ in range(3)), CampaignStatus.SUCCEEDED]

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=campaign(answers.pop(0)).model_dump_json())

    directory, output = DataDirectory.at(tmp_path), StringIO()
    directory.create()
    StackState("r", 1, "1", "tiny", warning="The disk of the moon is nearly full.").save(directory)
    with Gateway("http://gateway", "hw_key", httpx.MockTransport(answer)) as gateway:
        demo._watch(terminal(output), directory, gateway, campaign(), RECIPES["tiny"])
    assert output.getvalue().count("The disk of the moon is nearly full.") == 1
