"""The whole journey, and that it makes everything exactly once whatever happens on the way."""

import asyncio
from uuid import UUID

import pytest

from services.cascade.service.advance import Advancer
from services.cascade.service.campaigns import Campaigns
from services.cascade.service.report import report
from shared.contracts.campaigns import Campaign, CampaignIn, CampaignStatus, StageName, StageStatus
from shared.contracts.orders import OrderState
from shared.contracts.questions import QuestionState, Split
from shared.contracts.recipe import Recipe
from shared.db import Database
from tests.integration.cascade.conftest import Walk
from tests.integration.cascade.world import TOKENS_OF_A_RUN, TOKENS_OF_AN_ORDER, CrashError, World

pytestmark = pytest.mark.integration

ORDERS = ("eval-base", "teach", "eval-sft-0", "probe-sft-0", "eval-sft-1", "probe-sft-1", "rl", "eval-rl")
ONCE = {
    **{f"order {key}": 1 for key in ORDERS},
    **{f"snapshot {key}": 1 for key in ("distill", "build")},
    **{f"run {key}": 1 for key in ("sft-0", "sft-1", "rl")},
}


async def test_a_campaign_walks_through_every_stage(campaign: Campaign, world: World, walk: Walk):
    ended = await walk(campaign)

    assert ended.status is CampaignStatus.SUCCEEDED, ended.message
    assert [stage.name for stage in ended.stages] == list(StageName)
    assert all(stage.status is StageStatus.DONE for stage in ended.stages)
    skipped = {stage.name for stage in ended.stages if stage.detail.startswith("skipped")}
    assert skipped == {StageName.VERIFY}
    assert all(stage.done == stage.total > 0 for stage in ended.stages if stage.name not in skipped)
    assert world.made() == ONCE
    assert [order.key for order in world.orders.values()] == list(ORDERS)
    versions = {order.key: order.policy_version for order in world.orders.values()}
    assert versions == {"eval-base": 0, "teach": 0, "eval-sft-0": 1, "probe-sft-0": 1} | {
        "eval-sft-1": 2, "probe-sft-1": 2, "rl": 2, "eval-rl": 5
    }  # fmt: skip


async def test_each_stage_works_on_what_the_stages_before_it_made(campaign: Campaign, world: World, walk: Walk):
    await walk(campaign)
    names = {policy.id: policy.name for policy in world.policies.values()}
    runs = {run.key: run for run in world.runs.values()}
    snapshots = {world.requests[id_].key: (id_, world.requests[id_]) for id_ in world.snapshots}

    assert names[world.order("teach").policy_id] == "teacher"
    assert names[world.order("probe-sft-0").policy_id] == "sft-0"
    assert names[world.order("eval-rl").policy_id] == "rl"
    assert {order.key: order.selection.split for order in world.orders.values()} == {
        **dict.fromkeys(("eval-base", "eval-sft-0", "eval-sft-1", "eval-rl"), Split.EVAL),
        **dict.fromkeys(("teach", "probe-sft-1", "rl"), Split.TRAIN),
        "probe-sft-0": None,
    }
    assert world.order("teach").selection.limit == 20
    assert world.order("rl").selection.states == (QuestionState.HARD,)
    assert world.order("rl").state is OrderState.CLOSED
    assert snapshots["distill"][1].order_id == world.order("teach").id
    assert snapshots["build"][1].order_id == world.order("probe-sft-0").id
    assert snapshots["build"][1].replay_snapshot_id == snapshots["distill"][0]
    assert [(names[run.start_policy_id], run.first_version) for run in runs.values()] == [
        ("base", 1),
        ("sft-0", 2),
        ("sft-1", 3),
    ]
    assert runs["sft-1"].snapshot_id == snapshots["build"][0]
    assert runs["rl"].order_id == world.order("rl").id


@pytest.mark.parametrize("by", ["policy", "teacher"])
async def test_verifications_are_ordered_before_trajectories_are_built(
    campaigns: Campaigns, world: World, walk: Walk, by: str
):
    teacher = {"kind": "openai", "url": "http://teacher:9/v1", "model": "big"}
    recipe = Recipe.model_validate(
        {"teach": {"teacher": teacher}, "verify": {"by": by, "k": 2}, "priority": 3, "rl": {"sync": True}}
    )
    ended = await walk((await campaigns.create(CampaignIn(name="verified", recipe=recipe)))[0])
    assert ended.status is CampaignStatus.SUCCEEDED, ended.message
    [stage] = [stage for stage in ended.stages if stage.name is StageName.VERIFY]
    assert stage.detail == "6 of 10 confirmative verifications are true"
    order = world.order("verify")
    assert world.policies[order.policy_id].name == ("sft-0" if by == "policy" else "teacher")
    assert (order.k, order.priority) == (2, 3)
    assert (world.order("rl").on_demand, world.order("rl").watermark_groups) == (True, 16)
    [build] = [request for id_, request in world.requests.items() if id_ in world.snapshots and request.key == "build"]
    assert build.order_id == world.order("probe-sft-0").id
    assert build.more_order_ids == (order.id,)


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_a_crash_at_every_call_makes_nothing_twice(
    campaign: Campaign, world: World, advancer: Advancer, campaigns: Campaigns, lost: str
):
    """Each distinct call kills the process the first time: before the peer saw it, or when it had done it."""
    crashed: set[tuple[str, str, str]] = set()

    def crash_once(*call: str) -> None:
        if call not in crashed:
            crashed.add(call)  # type: ignore[arg-type]
            raise CrashError

    setattr(world, "before" if lost == "request" else "after", crash_once)
    status = CampaignStatus.RUNNING
    for _ in range(300):
        try:
            await advancer.advance(campaign.id)
            status = (await campaigns.get(campaign.id)).status
        except CrashError:
            continue
        if status is not CampaignStatus.RUNNING:
            break

    assert status is CampaignStatus.SUCCEEDED
    assert world.made() == ONCE
    created = {path for _, method, path in crashed if method == "POST" and path.count("/") == 2}
    assert created == {"/v1/orders", "/v1/snapshots", "/v1/runs", "/v1/policies"}


async def test_concurrent_hints_make_nothing_twice(
    campaign: Campaign, world: World, advancer: Advancer, campaigns: Campaigns
):
    for _ in range(100):
        await asyncio.gather(*(advancer.advance(campaign.id) for _ in range(4)))
        if (await campaigns.get(campaign.id)).status is not CampaignStatus.RUNNING:
            break

    assert (await campaigns.get(campaign.id)).status is CampaignStatus.SUCCEEDED
    assert world.made() == ONCE


async def test_an_advance_while_another_holds_the_campaign_does_nothing(
    campaign: Campaign, world: World, advancer: Advancer
):
    """The second one comes in the middle of a call of the first, and ends before the first goes on."""
    seconds: list[int] = []

    async def second() -> None:
        before = len(world.calls)
        await advancer.advance(campaign.id)
        seconds.append(len(world.calls) - before)

    world.during = second
    world.calls.clear()
    world.counts = world.counts.model_copy(update={"train": 1})
    await advancer.advance(campaign.id)
    assert len(seconds) == len(world.calls) == 5
    assert set(seconds) == {0}


async def test_questions_that_come_in_after_the_order_was_decided_change_nothing(
    campaign: Campaign, world: World, advancer: Advancer, walk: Walk
):
    def crash_at_teach(name: str, method: str, path: str) -> None:
        if (method, path) == ("POST", "/v1/orders") and any(order.key == "teach" for order in world.orders.values()):
            world.after = lambda *_: None
            world.counts = world.counts.model_copy(update={"train": 1000})
            raise CrashError

    world.after = crash_at_teach
    with pytest.raises(CrashError):
        await walk(campaign)
    assert (await walk(campaign)).status is CampaignStatus.SUCCEEDED
    assert world.order("teach").selection.limit == 20


async def test_the_report_fills_as_the_campaign_goes(
    campaign: Campaign, world: World, walk: Walk, database: Database, advancer: Advancer
):
    await advancer.advance(campaign.id)
    early = await report(database, world.peers, campaign.id)
    assert [stage.stage for stage in early.stages] == ["base", "sft-0", "sft-1", "rl"]
    assert all(stage.metrics is None for stage in early.stages)
    assert not early.levels

    await walk(campaign)
    full = await report(database, world.peers, "first")

    assert [stage.metrics.order_id for stage in full.stages if stage.metrics] == [
        world.order(key).id for key in ("eval-base", "eval-sft-0", "eval-sft-1", "eval-rl")
    ]
    assert full.stages[0].seconds is None
    assert all(stage.seconds is not None and stage.seconds >= 0 for stage in full.stages[1:])
    assert [stage.tokens_trained for stage in full.stages] == [None, *[TOKENS_OF_A_RUN] * 3]
    assert [stage.tokens_sampled for stage in full.stages] == [None, *[TOKENS_OF_AN_ORDER] * 2, 2 * TOKENS_OF_AN_ORDER]
    assert full.stages[3].policy == str(world.order("eval-rl").policy_id)
    assert [(levels.probe, levels.levels) for levels in full.levels] == [
        (StageName.PROBE_SFT_0, {1: 20, 5: 50}),
        (StageName.PROBE_SFT_1, {1: 20, 5: 50}),
    ]
    assert full.levels[0].states["hard"] == 50


async def test_a_sweep_advances_all_and_one_that_breaks_does_not_hold_up_the_others(
    campaign: Campaign, world: World, advancer: Advancer, campaigns: Campaigns
):
    other, _ = await campaigns.create(CampaignIn(name="second", recipe=Recipe(seed=1)))

    def break_first(name: str, method: str, path: str) -> None:
        if path == f"/v1/campaigns/{campaign.id}/settings":
            raise CrashError

    world.before = break_first
    with pytest.raises(ExceptionGroup):
        await advancer.advance_all()
    assert (await campaigns.get(campaign.id)).stage is StageName.REGISTER
    assert (await campaigns.get(other.id)).stage is StageName.EVAL_BASE
    assert {order.campaign_id for order in world.orders.values()} == {UUID(str(other.id))}
