"""A miniature campaign through all real processes, undisturbed and with each process killed once on the way."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from services.local.client import UnreachableError
from shared.contracts.campaigns import Campaign, CampaignStatus, StageStatus
from tests.e2e.conftest import Stack, miniature_recipe

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ENDED = (CampaignStatus.SUCCEEDED, CampaignStatus.FAILED, CampaignStatus.CANCELLED)
KILLED_ONCE = (
    "sampling-worker",
    "verification",
    "training-worker",
    "pool",
    "cascade-worker",
    "training",
    "generation",
    "beat",
    "valkey",
    "cascade",
    "gateway",
    "postgres",
    "flower",
    "engine",
)


def submit(stack: Stack, name: str, questions: Path, seed: int) -> Campaign:
    """Make a campaign out of a recipe file and submit the questions by the command line."""
    recipe = stack.directory.parent / f"{name}.json"
    recipe.write_text(json.dumps({"name": name, **miniature_recipe(), "seed": seed}))
    with stack.gateway() as gateway:
        campaign = gateway.create_campaign(name, {**miniature_recipe(), "seed": seed})
    submitted = stack.headwater("submit", str(questions), "--campaign", name, check=False)
    said = submitted.stdout + submitted.stderr
    for line in ("6", "7", "8"):
        assert line in said
    return campaign


def wait_for_end(stack: Stack, name: str, seconds: float) -> Campaign:
    """The ended campaign; a gateway that is being restarted is waited for."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with stack.gateway() as gateway:
                campaign = gateway.campaign(name)
        except UnreachableError:
            campaign = None
        if campaign is not None and campaign.status in ENDED:
            return campaign
        time.sleep(1)
    raise AssertionError(f"{name} has not ended after {seconds} s; it stands at {campaign}")


def check_ended_well(stack: Stack, campaign: Campaign) -> None:
    """Every stage is done, the report has all four policies, and nothing was sampled or trained twice."""
    assert campaign.status is CampaignStatus.SUCCEEDED, campaign.message
    assert {stage.status for stage in campaign.stages} == {StageStatus.DONE}
    with stack.gateway() as gateway:
        report = gateway.report(campaign.id)
    assert [stage.stage for stage in report.stages] == ["base", "sft-0", "sft-1", "rl"]
    assert [stage.metrics.overall.n for stage in report.stages if stage.metrics] == [16] * 4
    assert report.pools.train == 64
    assert report.pools.eval == 16
    # 4 evals of 16, the teacher's 64, 2 probes of 64; the rollouts come on top: 4 steps of 4 groups and what ran ahead.
    before_rl = 4 * 16 + 64 + 2 * 64
    assert before_rl + 16 <= report.pools.groups <= before_rl + 16 + 16
    base, sft_0 = (stage.metrics.overall for stage in report.stages[:2] if stage.metrics)
    assert base.final_accuracy.value == 0.0
    assert sft_0.unparsed_rate.value is not None
    assert sft_0.unparsed_rate.value < 0.9


def test_campaign_runs_through_all_processes(stack: Stack, questions_file: Path) -> None:
    campaign = submit(stack, "undisturbed", questions_file, seed=0)
    check_ended_well(stack, wait_for_end(stack, campaign.name, 420))
    markdown = stack.headwater("report", campaign.name, "--format", "markdown").stdout
    assert "verification accuracy" in markdown


def test_campaign_survives_the_death_of_each_process(stack: Stack, questions_file: Path) -> None:
    campaign = submit(stack, "killed", questions_file, seed=1)
    for name in KILLED_ONCE:
        victim = stack.state().processes[name]
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        time.sleep(4)
    check_ended_well(stack, wait_for_end(stack, campaign.name, 600))
    state = stack.state()
    assert {name: state.processes[name].restarts for name in KILLED_ONCE} == dict.fromkeys(KILLED_ONCE, 1)
