"""What people see in the terminal."""

from io import StringIO
from pathlib import Path

from rich.console import Console

from services.local.directory import DataDirectory
from services.local.progress import CampaignProgress
from services.local.rendering import duration, show_campaign, show_campaigns, show_report, show_status, terminal
from services.local.report.content import report_json
from services.local.state import ProcessState, ProcessStatus, StackState
from shared.contracts.campaigns import StageName
from tests.unit.local import samples

CONTENT = samples.content()


def test_the_terminal_shows_the_same_numbers():
    output = StringIO()
    console = terminal(output)
    show_report(console, CONTENT)
    show_campaign(console, samples.campaign())
    show_campaigns(console, [samples.campaign()])
    assert "70.0 [65.0, 75.0]" in output.getvalue()
    assert "90.0 [85.0, 95.0] n=400" in output.getvalue()
    assert "100 of 300 steps" in output.getvalue()


BRACKETS = "The trainer said [/tmp/a]: no space left in [bold]"


def test_a_report_half_way_says_what_runs_and_what_the_campaign_waits_for():
    output = StringIO()
    waiting = samples.campaign().model_copy(update={"message": BRACKETS})
    show_report(terminal(output), report_json(samples.report().model_copy(update={"campaign": waiting}), []))
    assert output.getvalue().endswith(f"running: sft-0, 100 of 300 steps\n{BRACKETS}\n")


def test_what_a_server_says_is_no_markup():
    output = StringIO()
    teach, sft_0, build = samples.campaign().stages
    stages = (teach, sft_0.model_copy(update={"detail": BRACKETS}), build)
    campaign = samples.campaign().model_copy(update={"message": BRACKETS, "stages": stages})
    show_campaign(terminal(output), campaign)
    assert output.getvalue().count(BRACKETS) == 2
    for is_terminal in (True, False):
        shown = StringIO()
        console = Console(file=shown, width=160, markup=False, force_terminal=is_terminal)
        with CampaignProgress(console, dict.fromkeys(StageName, 10.0)) as progress:
            progress.show(campaign)
        assert BRACKETS in shown.getvalue()


def test_durations_are_said_as_people_say_them():
    assert [duration(seconds) for seconds in (0, 42.9, 185, 7800)] == ["0 s", "42 s", "3 min 05 s", "2 h 10 min"]


def test_status_shows_the_addresses_and_where_their_keys_are(tmp_path: Path):
    output = StringIO()
    directory = DataDirectory.at(tmp_path)
    directory.secret("flower_password")
    urls = {"gateway": "http://127.0.0.1:8400", "flower": "http://127.0.0.1:5555"}
    processes = {"pool": ProcessState("pool", ProcessStatus.READY), "engine": ProcessState("engine")}
    state = StackState("run", 1, "2", "tiny", urls=urls, processes=processes, warning="The disk is nearly full.")
    show_status(Console(file=output, width=80, markup=False), state, directory)
    lines = output.getvalue().splitlines()
    assert [words in output.getvalue() for words in ("ready", "waiting")] == [True, True]
    assert "The disk is nearly full." in lines
    assert f"gateway http://127.0.0.1:8400 (API key: {tmp_path}/api_key)" in lines
    password = tmp_path / "secrets" / "flower_password"
    assert password.exists()
    assert f"Flower  http://127.0.0.1:5555 (user headwater, password: {password})" in lines
