"""A miniature campaign through all real processes: undisturbed, and with everything killed on the way."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from services.local import orphans, postgres
from services.local.client import UnreachableError
from services.local.directory import DataDirectory
from services.local.state import ProcessStatus
from shared.contracts.campaigns import Campaign, CampaignStatus, StageStatus
from tests.e2e.conftest import MINIATURE_RECIPE, Stack

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
    """Make a campaign and submit the questions by the command line: three lines are refused by number, the rest goes in."""
    with stack.gateway() as gateway:
        campaign = gateway.create_campaign(f'name = "{name}"\nseed = {seed}\n{MINIATURE_RECIPE}')
    said = stack.headwater("submit", str(questions), "--campaign", name).stdout
    assert "80 accepted" in said
    assert [number for number in range(1, 84) if f"line {number} " in said or f"line {number}:" in said] == [6, 7, 8]
    return campaign


def look(stack: Stack, name: str) -> Campaign | None:
    """The campaign, or None while the gateway is being restarted."""
    with suppress(UnreachableError), stack.gateway() as gateway:
        return gateway.campaign(name)
    return None


def wait_for_end(stack: Stack, name: str, seconds: float) -> Campaign:
    """The ended campaign."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        campaign = look(stack, name)
        if campaign is not None and campaign.status in ENDED:
            return campaign
        time.sleep(1)
    raise AssertionError(f"{name} has not ended after {seconds} s; it stands at {look(stack, name)}")


def wait_until_ready(stack: Stack, name: str) -> int:
    """The pid of a process once it is ready."""
    until = time.monotonic() + 180
    while time.monotonic() < until:
        process = stack.state().processes[name]
        if process.status is ProcessStatus.READY and process.pid is not None:
            return process.pid
        time.sleep(0.2)
    raise AssertionError(f"{name} is not ready: {stack.state().processes[name]}")


async def rows(stack: Stack, query: str, *arguments: Any) -> list[Any]:
    """What the stack's Postgres answers."""
    password = DataDirectory(stack.directory).secret("postgres_password")
    url = postgres.url(stack.state().ports["postgres"], password).replace("+asyncpg", "")
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(query, *arguments))
    finally:
        await connection.close()


async def check_ended_well(stack: Stack, campaign: Campaign) -> None:
    """Every stage is done, the report has all four policies, no question was sampled twice, no step trained twice."""
    assert campaign.status is CampaignStatus.SUCCEEDED, campaign.message
    assert {stage.status for stage in campaign.stages} == {StageStatus.DONE}
    with stack.gateway() as gateway:
        report = gateway.report(campaign.id)
    assert [stage.stage for stage in report.stages] == ["base", "sft-0", "sft-1", "rl"]
    assert [stage.metrics.overall.n for stage in report.stages if stage.metrics] == [16] * 4
    assert (report.pools.train, report.pools.eval) == (64, 16)
    base, sft_0 = (stage.metrics.overall for stage in report.stages[:2] if stage.metrics)
    assert base.final_accuracy.value == 0.0
    assert sft_0.unparsed_rate.value is not None
    assert sft_0.unparsed_rate.value < 0.9
    finite = await rows(
        stack,
        "SELECT o.key, count(g.id) AS groups, count(DISTINCT g.question_id) AS questions FROM pool.orders o "
        "JOIN pool.groups g ON g.order_id = o.id WHERE o.campaign_id = $1 AND o.watermark_groups IS NULL GROUP BY o.key",
        campaign.id,
    )
    expected = {"teach": 64, "probe-sft-0": 64 + 16, "probe-sft-1": 64} | dict.fromkeys(
        ("eval-base", "eval-sft-0", "eval-sft-1", "eval-rl"), 16
    )
    assert {row["key"]: (row["groups"], row["questions"]) for row in finite} == {
        key: (count, count) for key, count in expected.items()
    }
    steps = await rows(
        stack,
        "SELECT b.step, count(*) AS groups FROM pool.batches b JOIN pool.orders o ON o.id = b.order_id "
        "JOIN pool.batch_groups bg ON bg.batch_id = b.id "
        "WHERE o.campaign_id = $1 AND b.state = 'acknowledged' GROUP BY b.step ORDER BY b.step",
        campaign.id,
    )
    rl = tomllib.loads(MINIATURE_RECIPE)["rl"]
    assert [(row["step"], row["groups"]) for row in steps] == [
        (step, rl["groups_per_step"]) for step in range(rl["steps"])
    ]


async def test_campaign_runs_through_all_processes(stack: Stack, questions_file: Path) -> None:
    campaign = submit(stack, "undisturbed", questions_file, seed=0)
    await check_ended_well(stack, wait_for_end(stack, campaign.name, 420))
    markdown = stack.headwater("report", campaign.name, "--format", "markdown").stdout
    assert "verification accuracy" in markdown
    assert all(f"## Run {key}: " in markdown for key in ("sft-0", "sft-1", "rl"))


async def test_campaign_survives_the_death_of_each_process_and_of_all(stack: Stack, questions_file: Path) -> None:
    campaign = submit(stack, "killed", questions_file, seed=1)
    for name in KILLED_ONCE:
        os.kill(wait_until_ready(stack, name), signal.SIGKILL)
        await asyncio.sleep(3)
    for name in KILLED_ONCE:
        wait_until_ready(stack, name)
    assert all(stack.state().processes[name].restarts >= 1 for name in KILLED_ONCE)
    before = look(stack, campaign.name)
    assert before is not None
    done_before = {stage.name: stage.finished_at for stage in before.stages if stage.status is StageStatus.DONE}
    kill_everything(stack)
    stack.up()
    ended = wait_for_end(stack, campaign.name, 600)
    await check_ended_well(stack, ended)
    finished = {stage.name: stage.finished_at for stage in ended.stages}
    assert {name: finished[name] for name in done_before} == done_before


def kill_everything(stack: Stack) -> None:
    """`kill -9` of the supervisor takes every process with it; none is left."""
    state = stack.state()
    pids = {process.pid: process.started for process in state.processes.values() if process.pid is not None}
    os.kill(state.supervisor_pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while (
        left := [pid for pid, started in pids.items() if orphans.is_alive(pid, started)]
    ) and time.monotonic() < until:
        time.sleep(0.2)
    assert not left
