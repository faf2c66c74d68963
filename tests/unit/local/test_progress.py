"""Estimates of what is left."""

from io import StringIO

import pytest
from rich.console import Console

from services.local.progress import CampaignProgress, campaign_left_s, stage_left_s
from shared.contracts.campaigns import CampaignStatus
from tests.unit.local.samples import NOW, campaign


def test_a_running_stage_goes_on_at_its_own_pace():
    teach, sft_0, build = campaign().stages
    assert stage_left_s(sft_0, NOW) == pytest.approx(80)
    assert stage_left_s(build, NOW) is None
    assert stage_left_s(teach, NOW) == 0


def test_later_stages_scale_with_this_machine():
    expected_s = {"teach": 30.0, "build": 10.0}
    assert campaign_left_s(campaign(), expected_s, NOW) == pytest.approx(80 + 2 * 10)
    assert campaign_left_s(campaign(), {"teach": 30.0}, NOW) is None


def test_without_a_terminal_there_is_a_line_a_stage():
    output = StringIO()
    with CampaignProgress(Console(file=output), {}) as progress:
        progress.show(campaign())
        progress.show(campaign())
    assert output.getvalue().count("sft-0: 100 of 300 steps") == 1


def test_on_a_terminal_there_is_a_bar_a_stage():
    output = StringIO()
    with CampaignProgress(Console(file=output, force_terminal=True, width=120), {}) as progress:
        progress.show(campaign())
    assert "teach" in output.getvalue()
    assert "100/300" in output.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_a_waiting_campaign_waits_for_is_said_when_it_changes(is_terminal: bool):
    output = StringIO()
    waiting = campaign(CampaignStatus.WAITING)
    with CampaignProgress(Console(file=output, force_terminal=is_terminal, width=120), {}) as progress:
        for message in ("pool does not answer", "pool does not answer", "99 of at least 100 questions"):
            progress.show(waiting.model_copy(update={"message": message}))
    assert output.getvalue().count("waiting: pool does not answer") == 1
    assert output.getvalue().count("waiting: 99 of at least 100 questions") == 1
