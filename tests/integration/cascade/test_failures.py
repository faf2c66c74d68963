"""What is waited for, what fails, and how a failed campaign goes on."""

from collections.abc import Callable

import pytest

from services.cascade.service.advance import Advancer
from services.cascade.service.campaigns import Campaigns
from shared.contracts.campaigns import Campaign, CampaignIn, CampaignStatus, StageName, StageStatus
from shared.contracts.orders import OrderState
from shared.contracts.questions import PoolCounts
from shared.contracts.recipe import Recipe
from shared.contracts.runs import RunFailure, RunState
from shared.contracts.snapshots import SnapshotStatus
from shared.errors import ConflictError, HeadwaterError
from tests.integration.cascade.conftest import Walk
from tests.integration.cascade.world import CrashError, World, is_teach

pytestmark = pytest.mark.integration

TEACHER = {"teach": {"teacher": {"kind": "openai", "url": "http://teacher:9/v1", "model": "big"}}}


@pytest.mark.parametrize(
    ("service", "stage"),
    [
        ("generation", StageName.REGISTER),
        ("pool", StageName.TEACH),
        ("pool", StageName.BUILD),
        ("training", StageName.SFT_1),
    ],
)
async def test_a_service_that_is_down_is_waited_for(
    campaign: Campaign,
    world: World,
    advancer: Advancer,
    campaigns: Campaigns,
    walk: Walk,
    service: str,
    stage: StageName,
):
    for _ in range(50):
        if (await campaigns.get(campaign.id)).stage is stage:
            break
        await advancer.advance(campaign.id)
    before = (await campaigns.get(campaign.id)).stages
    world.down = {service}
    for _ in range(3):
        await advancer.advance(campaign.id)

    stuck = await campaigns.get(campaign.id)
    assert stuck.stage is stage
    assert stuck.status is CampaignStatus.WAITING
    assert f"{service} does not answer" in stuck.message
    ids = [(one.order_id, one.snapshot_id, one.run_id, one.started_at) for one in before]
    assert [(one.order_id, one.snapshot_id, one.run_id, one.started_at) for one in stuck.stages] == ids

    world.down = set()
    await advancer.advance(campaign.id)
    assert (await walk(campaign)).status is CampaignStatus.SUCCEEDED
    assert max(world.made().values()) == 1


async def test_it_waits_for_the_minimum_of_questions(campaign: Campaign, world: World, advancer: Advancer, walk: Walk):
    plenty, world.counts = world.counts, PoolCounts(train=99, eval=50)
    waiting = await walk(campaign)
    assert (waiting.status, waiting.stage) == (CampaignStatus.WAITING, StageName.EVAL_BASE)
    assert "99 of at least 100 training questions and 50 of at least 50 eval questions" in waiting.message
    assert not world.orders

    world.counts = plenty
    await advancer.advance(campaign.id)
    assert (await walk(campaign)).status is CampaignStatus.SUCCEEDED


async def test_without_eval_questions_evals_are_skipped_only_if_the_recipe_says_so(
    campaigns: Campaigns, world: World, walk: Walk
):
    campaign, _ = await campaigns.create(CampaignIn(name="blind", recipe=Recipe(minimum_eval_questions=0)))
    world.counts = world.counts.model_copy(update={"eval": 0})
    ended = await walk(campaign)
    assert ended.status is CampaignStatus.SUCCEEDED, ended.message
    evals = [stage for stage in ended.stages if stage.name.startswith("eval")]
    assert all("skipped" in stage.detail and stage.order_id is None for stage in evals)


def _other_model(world: World) -> None:
    world.engine_model = "smollm2"


def _teacher_down(world: World) -> None:
    world.dead_of = lambda order: 10 if is_teach(order) else 0


def _teacher_goes_down(world: World) -> None:
    world.dead_of = lambda order: 6 if is_teach(order) else 0


def _some_dead(world: World) -> None:
    world.dead_of = lambda order: 2 if order.key == "eval-base" else 1


def _teacher_unreachable(world: World) -> None:
    world.teacher_answers = False


def _no_solutions(world: World) -> None:
    world.questions_of = lambda order: 0 if is_teach(order) else 10


def _snapshot_fails(world: World) -> None:
    world.snapshot_end = lambda _: (SnapshotStatus.FAILED, 0)


def _snapshot_empty(world: World) -> None:
    world.snapshot_end = lambda _: (SnapshotStatus.READY, 0)


def _sft_fails(world: World) -> None:
    world.run_end = lambda run: (
        (RunState.FAILED, "batch_size 32 needs 9 GB; lower sft0.batch_size") if run.sft else (RunState.SUCCEEDED, "")
    )


def _no_row_fits(world: World) -> None:
    _sft_fails(world)
    world.run_failure = RunFailure.NO_ROW_FITS


def _sft_killed(world: World) -> None:
    _sft_fails(world)
    world.run_failure = RunFailure.TOO_MANY_ATTEMPTS


def _rl_cancelled(world: World) -> None:
    world.run_end = lambda run: (RunState.CANCELLED, "") if run.rl else (RunState.SUCCEEDED, "")


def _address_refused(world: World) -> None:
    def refuse(name: str, method: str, path: str) -> None:
        if (method, path) == ("POST", "/v1/policies"):
            raise HeadwaterError("address_invalid", "The address has a query; name one such as https://host/v1.", 422)

    world.before = refuse


def _nothing_hard(world: World) -> None:
    world.counts = world.counts.model_copy(update={"hard": 0})


@pytest.mark.parametrize(
    ("sabotage", "stage", "sentence"),
    [
        (_address_refused, StageName.REGISTER, "Stage register was refused: The address has a query"),
        (_other_model, StageName.REGISTER, "restart with headwater up --model tiny"),
        (_no_solutions, StageName.TEACH, "submit some with a 'solution'"),
        (_some_dead, StageName.EVAL_BASE, "gave up 2 of its 10 questions, more than 10%"),
        (_teacher_down, StageName.TEACH, "http://teacher:9/v1 answered none of 10 questions"),
        (_teacher_goes_down, StageName.TEACH, "http://teacher:9/v1 answered 4 of 10 questions: check that it is up"),
        (_teacher_unreachable, StageName.TEACH, "The teacher cannot be used: http://teacher:9/v1 does not answer"),
        (_snapshot_fails, StageName.DISTILL, "the disk is full"),
        (_snapshot_empty, StageName.DISTILL, "has no rows to train on (its order has no scored answer)"),
        (_sft_fails, StageName.SFT_0, "failed (out_of_memory) at step 2: batch_size 32 needs 9 GB"),
        (_no_row_fits, StageName.SFT_0, "failed (no_row_fits) at step 2"),
        (_sft_killed, StageName.SFT_0, "failed (too_many_attempts) at step 2"),
        (_rl_cancelled, StageName.RL, "Run 'rl' was cancelled"),
        (
            _nothing_hard,
            StageName.RL,
            "no question is hard for the newest policy (there are: 200 candidate, 20 certain)",
        ),
    ],
)
async def test_a_definite_failure_is_one_sentence_with_its_way_out_and_can_be_resumed(
    campaigns: Campaigns, world: World, walk: Walk, sabotage: Callable[[World], None], stage: StageName, sentence: str
):
    has_teacher = sabotage in (_teacher_down, _teacher_goes_down, _teacher_unreachable)
    recipe = Recipe.model_validate(TEACHER if has_teacher else {})
    campaign, _ = await campaigns.create(CampaignIn(name="doomed", recipe=recipe))
    healthy = {name: value for name, value in vars(world).items() if name not in ("orders", "snapshots", "runs")}
    sabotage(world)

    failed = await walk(campaign)
    assert (failed.status, failed.stage) == (CampaignStatus.FAILED, stage), failed.message
    assert sentence in failed.message
    if sabotage in (_address_refused, _snapshot_empty, _sft_fails, _no_row_fits, _nothing_hard):
        way_out = "; a campaign's recipe never changes, so create another one with `headwater campaign create` (POST /v1/campaigns)."
    else:
        way_out = "; then resume it with `headwater campaign resume doomed` (POST /v1/campaigns/doomed/resume)."
    assert failed.message.endswith(way_out)
    assert failed.stages[list(StageName).index(stage)].status is StageStatus.FAILED
    assert all(order.state is not OrderState.OPEN for order in world.orders.values())
    made, finished = world.made(), [one.finished_at for one in failed.stages if one.status is StageStatus.DONE]

    await walk(campaign)
    assert world.made() == made, "a failed campaign stays where it is"

    vars(world).update(healthy)
    resumed = await campaigns.resume("doomed")
    assert (resumed.status, resumed.message) == (CampaignStatus.RUNNING, "")
    ended = await walk(campaign)
    assert ended.status is CampaignStatus.SUCCEEDED, ended.message
    assert [one.finished_at for one in ended.stages][: len(finished)] == finished, "what was done is not done again"
    retried = {key for key in world.made() if key.endswith("-retry-1")}
    assert {key.removesuffix("-retry-1") for key in retried} <= {
        f"{kind} {stage}" for kind in ("order", "snapshot", "run")
    }


async def test_a_teacher_that_goes_away_is_waited_for_and_named(
    campaigns: Campaigns, world: World, advancer: Advancer, walk: Walk
):
    campaign, _ = await campaigns.create(CampaignIn(name="taught", recipe=Recipe.model_validate(TEACHER)))
    while not any(is_teach(order) for order in world.orders.values()):
        await advancer.advance(campaign.id)
    world.teacher_answers = False
    await advancer.advance(campaign.id)
    waiting = await campaigns.get("taught")
    assert (waiting.status, waiting.stage) == (CampaignStatus.WAITING, StageName.TEACH)
    assert "http://teacher:9/v1 does not answer" in waiting.message

    world.teacher_answers = True
    await advancer.advance(campaign.id)
    assert (await campaigns.get("taught")).message == ""
    assert (await walk(campaign)).status is CampaignStatus.SUCCEEDED


async def test_cancelling_stops_the_run_and_its_order(
    campaign: Campaign, world: World, advancer: Advancer, campaigns: Campaigns
):
    for _ in range(50):
        if world.runs and any(run.rl for run in world.runs.values()):
            break
        await advancer.advance(campaign.id)
    cancelled = await campaigns.cancel("first")

    assert cancelled.status is CampaignStatus.CANCELLED
    assert next(run for run in world.runs.values() if run.rl).state is RunState.CANCELLED
    assert world.order("rl").state is OrderState.CLOSED
    calls = len(world.calls)
    await advancer.advance(campaign.id)
    await advancer.advance_all()
    assert len(world.calls) == calls
    with pytest.raises(ConflictError, match="cannot go on"):
        await campaigns.resume("first")


async def test_an_order_whose_answer_was_lost_is_closed_with_its_campaign(
    campaign: Campaign, world: World, advancer: Advancer, campaigns: Campaigns
):
    def crash(name: str, method: str, path: str) -> None:
        if (method, path) == ("POST", "/v1/orders"):
            world.after = lambda *_: None
            raise CrashError

    world.after = crash
    with pytest.raises(CrashError):
        await advancer.advance(campaign.id)
    (order,) = world.orders.values()
    assert order.state is OrderState.OPEN

    await campaigns.cancel("first")
    assert [one.state for one in world.orders.values()] == [OrderState.CLOSED]
    assert (await campaigns.get("first")).stages[1].order_id == order.id


async def test_a_campaign_whose_order_is_refused_can_be_cancelled(
    campaign: Campaign, world: World, campaigns: Campaigns, walk: Walk
):
    def refuse(name: str, method: str, path: str) -> None:
        if (method, path) == ("POST", "/v1/orders"):
            raise ConflictError("conflict", "another order has this key")

    world.before = refuse
    assert (await walk(campaign)).status is CampaignStatus.FAILED
    assert (await campaigns.cancel("first")).status is CampaignStatus.CANCELLED
