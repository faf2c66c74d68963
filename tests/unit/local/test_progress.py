"""Estimates of what is left."""

from io import StringIO

import pytest
from rich.console import Console

from examples.demos import RECIPES, Demo
from services.local.progress import CampaignProgress, campaign_left_s, stage_left_s
from shared.contracts.campaigns import CampaignStatus, StageName, StageStatus
from tests.unit.local.samples import NOW, campaign

EXPECTED_S = dict.fromkeys(StageName, 10.0)


def test_a_running_stage_goes_on_at_its_own_pace():
    teach, sft_0, build = campaign().stages
    assert stage_left_s(sft_0, NOW) == pytest.approx(80)
    assert stage_left_s(build, NOW) is None
    assert stage_left_s(teach, NOW) == 0


def test_later_stages_scale_with_this_machine():
    expected_s = {StageName.TEACH: 30.0, StageName.BUILD: 10.0}
    assert campaign_left_s(campaign(), expected_s, NOW) == pytest.approx(80 + 2 * 10)


@pytest.mark.parametrize("demo", RECIPES.values(), ids=RECIPES)
def test_every_demo_knows_how_long_each_stage_takes(demo: Demo):
    assert set(demo.stage_seconds) == set(StageName)


def test_without_a_terminal_there_is_a_line_a_stage():
    output = StringIO()
    with CampaignProgress(Console(file=output), EXPECTED_S) as progress:
        progress.show(campaign())
        progress.show(campaign())
    assert output.getvalue().count("sft-0: 100 of 300 steps") == 1


def test_on_a_terminal_there_is_a_bar_a_stage():
    output = StringIO()
    with CampaignProgress(Console(file=output, force_terminal=True, width=120), EXPECTED_S) as progress:
        progress.show(campaign())
    assert "teach" in output.getvalue()
    assert "100/300" in output.getvalue()


def test_the_bar_of_a_failed_stage_stays_where_it_was():
    teach, sft_0, build = campaign().stages
    failed = sft_0.model_copy(update={"status": StageStatus.FAILED, "finished_at": NOW})
    ended = campaign(CampaignStatus.FAILED).model_copy(update={"stages": (teach, failed, build)})
    output = StringIO()
    with CampaignProgress(Console(file=output, force_terminal=True, width=120), EXPECTED_S) as progress:
        progress.show(ended)
    assert "100/300" in output.getvalue()
    assert "300/300" not in output.getvalue()
    assert "1/3" in output.getvalue(), "of the stages one is done"
    assert "left" not in output.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_a_waiting_campaign_waits_for_is_said_when_it_changes(is_terminal: bool):
    output = StringIO()
    waiting = campaign(CampaignStatus.WAITING)
    with CampaignProgress(Console(file=output, force_terminal=is_terminal, width=120), EXPECTED_S) as progress:
        for message in ("pool does not answer", "pool does not answer", "99 of at least 100 questions"):
            progress.show(waiting.model_copy(update={"message": message}))
    assert output.getvalue().count("waiting: pool does not answer") == 1
    assert output.getvalue().count("waiting: 99 of at least 100 questions") == 1
