"""A drain: everything claimed becomes one complete group, or is given back with a reason, whatever breaks on the way."""

import asyncio
import contextlib
import time

import httpx
import pytest

from services.sampling.service.drain import STOPPED
from services.verification.kinds.judgement import unscored
from shared.contracts.generation import FinishReason, PromptSamples, Sample
from shared.contracts.orders import GroupStatus
from shared.contracts.questions import QuestionKind
from shared.contracts.reverification import CheckLimit
from shared.contracts.verdicts import UnscoredReason, VerdictOutcome
from tests.unit.sampling.fakes import SETTINGS, AllButTheFirst, World, right_samples


def assert_all_stored(world: World, k: int = 4) -> None:
    assert len(world.pool.groups) == world.pool.total
    assert all(len(group.responses) == k for group in world.pool.groups.values())
    assert world.pool.receipts == {GroupStatus.STORED: world.pool.total}
    assert not world.pool.leases
    assert not world.pool.failures


async def test_every_question_becomes_one_complete_group():
    world = World(100)
    report = await world.run()
    assert_all_stored(world)
    assert report.groups == {"stored": 100}
    assert report.abandoned == 0
    response = next(iter(world.pool.groups.values())).responses[0]
    assert response.verdict.outcome is VerdictOutcome.CORRECT
    assert response.tokens == len(response.text)
    assert all(limit * 4 <= SETTINGS.answers_in_flight for limit in world.pool.claims)
    assert max(world.verification.batches) >= 16  # not one request a group


async def test_nothing_to_do_ends():
    world = World(0)
    assert (await world.run()).ended == "nothing to do"
    assert len(world.pool.claims) == 1


async def test_an_open_order_without_work_is_asked_a_few_times():
    world = World(0)
    world.pool.total = 1
    assert (await world.run()).ended == "nothing to do"
    assert len(world.pool.claims) == 1 + SETTINGS.quiet_polls


async def test_a_slow_prompt_holds_up_nobody_else():
    world = World(60)
    world.generation.hold = lambda text: text == "7" and len(world.pool.groups) < 59
    await world.run()
    assert_all_stored(world)


async def test_an_error_line_is_given_back_with_its_reason():
    world = World(3)
    world.generation.line = lambda request, id_, text: (
        PromptSamples(id=id_, error="prompt-too-long") if text == "1" else None
    )
    report = await world.run()
    assert report.failed == {"prompt-too-long": 1}
    assert [(f.reason, f.counts_as_attempt) for f in world.pool.failures] == [("prompt-too-long", True)]
    assert len(world.pool.groups) == 2


@pytest.mark.parametrize("error", ["engine-down", "policy-not-loadable", "external-unavailable"])
async def test_an_engine_or_a_teacher_that_was_away_costs_the_question_no_attempt(error: str):
    world = World(1)
    errors = [error]
    world.generation.line = lambda request, id_, text: PromptSamples(id=id_, error=errors.pop()) if errors else None
    await world.run()
    assert [failure.counts_as_attempt for failure in world.pool.failures] == [False]
    assert len(world.pool.groups) == 1


@pytest.mark.parametrize("count", [0, 3, 5])
async def test_a_group_is_complete_or_is_not(count: int):
    world = World(1)
    sample = Sample(text="\\boxed{1}", finish_reason=FinishReason.STOP)
    world.generation.line = lambda request, id_, text: PromptSamples(id=id_, samples=(sample,) * count)
    assert (await world.run()).failed == {"incomplete-group": 1}
    assert not world.pool.groups


async def test_a_reference_policy_gives_what_it_has():
    world = World(1)
    sample = Sample(text="\\boxed{1}", finish_reason=FinishReason.REFERENCE)
    world.generation.line = lambda request, id_, text: PromptSamples(id=id_, samples=(sample,))
    await world.run()
    assert_all_stored(world, k=1)


async def test_a_cut_stream_is_asked_again_for_what_is_missing():
    world = World(8)
    world.generation.cut_after = [3, 0, 2]
    await world.run()
    assert_all_stored(world)
    assert [len(request.prompts) for request in world.generation.requests] == [8, 5, 5, 3]


async def test_a_full_engine_is_given_time():
    world = World(4)
    world.generation.refusals = [httpx.Response(429, headers={"Retry-After": "1"}), httpx.Response(503)]
    await world.run()
    assert_all_stored(world)
    assert len(world.generation.requests) == 3


@pytest.mark.parametrize(
    ("code", "is_the_questions"),
    [("policy_not_loadable", False), ("architecture_mismatch", False), ("artifact_missing", False), ("other", True)],
)
async def test_a_refused_request_is_given_back_by_name(code: str, is_the_questions: bool):
    world = World(2)
    body = f'{{"error": {{"code": "{code}", "message": "The engine refuses it."}}}}'
    world.generation.refusals = [httpx.Response(409, text=body)]
    report = await world.run()
    assert report.failed == {code: 2}
    assert [failure.counts_as_attempt for failure in world.pool.failures] == [is_the_questions] * 2


async def test_a_group_that_the_pool_refuses_is_given_back_with_its_words():
    world = World(3)
    sample = Sample(text="refused", finish_reason=FinishReason.STOP)
    world.generation.line = lambda request, id_, text: (
        PromptSamples(id=id_, samples=(sample,) * 4) if text == "1" else None
    )
    world.pool.refused = {"refused"}
    report = await world.run()
    assert (report.groups, report.failed) == ({"stored": 2, "refused": 1}, {"group-refused": 1})
    [failure] = world.pool.failures
    assert (failure.message, failure.counts_as_attempt) == ("It is refused.", True)
    assert not world.pool.leases


async def test_short_outages_of_pool_and_verification_lose_nothing():
    world = World(20)
    world.pool.down = 2
    world.verification.down = 2
    await world.run()
    assert_all_stored(world)


async def test_nonsense_of_any_peer_is_waited_out_and_named_when_it_goes_on():
    world = World(20)
    world.pool.nonsense = 2
    world.verification.nonsense = 1
    world.generation.refusals = [httpx.Response(200, content=b'{"id": 7}\n')]
    await world.run()
    assert len(world.pool.groups) == 20
    world = World(2)
    world.generation.refusals = [httpx.Response(200, content=b"[1]\n") for _ in range(20)]
    report = await world.run(SETTINGS.model_copy(update={"patience_s": 0.3}))
    assert report.ended.startswith("generation: answered what is no PromptSamples")
    assert not world.pool.leases
    assert {failure.message for failure in world.pool.failures} == {f"{report.ended} (worker)"}


async def test_groups_without_a_receipt_are_handed_in_again():
    world = World(12)
    world.pool.receipts_lost = 3
    report = await world.run()
    assert report.groups.total() == len(world.pool.groups) == 12
    assert world.pool.receipts[GroupStatus.STORED] == 12
    assert not world.pool.leases


async def test_a_check_without_an_end_costs_its_own_group_alone():
    world = World(6, k=2)
    world.generation.line = lambda request, id_, text: PromptSamples(
        id=id_, samples=(Sample(text=f"\\boxed{{x={text}}}", finish_reason=FinishReason.STOP),) * 2
    )
    world.verification.limit = CheckLimit(deadline_s=0.01, at_once=2)
    world.verification.judges.hang = lambda answer: answer == "x=3" and not world.pool.failures
    await world.run(SETTINGS.model_copy(update={"verdict_grace_s": 0.3}))
    assert [(failure.reason, failure.counts_as_attempt) for failure in world.pool.failures] == [("timeout", False)]
    assert len(world.pool.groups) == 6


async def test_verification_that_is_slow_but_not_stuck_is_asked_for_the_rest():
    world = World(4, k=2)
    world.verification.limit = CheckLimit(deadline_s=0.01, at_once=2)
    world.verification.pace_s = 0.1
    await world.run(SETTINGS.model_copy(update={"verdict_grace_s": 0.2}))
    assert not world.pool.failures
    assert len(world.pool.groups) == 4


async def test_a_long_outage_gives_the_leases_back_for_the_next_drain():
    world = World(5)
    world.generation.refusals = [httpx.Response(503) for _ in range(20)]
    report = await world.run(SETTINGS.model_copy(update={"patience_s": 0.5}))
    assert "generation" in report.ended
    assert report.abandoned == 5
    assert not any(failure.counts_as_attempt for failure in world.pool.failures)
    world.generation.refusals = []
    await world.run()
    assert len(world.pool.groups) == 5


@pytest.mark.parametrize("failures", [1, 2])
async def test_a_missing_verdict_is_asked_for_once_more_then_kept(failures: int):
    world = World(1, k=1)
    world.generation.line = lambda request, id_, text: PromptSamples(
        id=id_, samples=(Sample(text="\\boxed{x=1}", finish_reason=FinishReason.STOP),)
    )
    world.verification.judges.judgements = [unscored(UnscoredReason.TIMEOUT)] * failures
    await world.run()
    (group,) = world.pool.groups.values()
    assert world.verification.judges.asked == 2
    expected = VerdictOutcome.CORRECT if failures == 1 else VerdictOutcome.UNSCORED
    assert group.responses[0].verdict.outcome is expected


async def test_of_a_broken_stream_of_verdicts_only_the_rest_is_asked_for_again():
    world = World(3, k=4)
    world.verification.breaks = 2
    await world.run()
    assert_all_stored(world)
    assert len(world.verification.batches) >= 3
    assert world.verification.batches[-1] <= world.verification.batches[0]


async def test_a_reference_nobody_can_read_is_kept_unscored_at_once():
    world = World(1, kind=QuestionKind.CHOICE)
    world.pool.waiting[0] = world.pool.waiting[0].model_copy(
        update={"question": world.pool.waiting[0].question.model_copy(update={"answer": "nonsense"})}
    )
    await world.run()
    (group,) = world.pool.groups.values()
    assert {r.verdict.unscored_reason for r in group.responses} == {UnscoredReason.REFERENCE_UNPARSEABLE}
    assert world.verification.batches == [4]


async def test_a_batch_that_is_too_large_is_handed_in_one_by_one():
    world = World(30)
    world.pool.refuse_batches_over = 1
    await world.run()
    assert_all_stored(world)


async def test_a_killed_drain_loses_nothing():
    world = World(40)
    world.generation.hold = AllButTheFirst(20)
    async with world.drain() as drain:
        running = asyncio.create_task(drain.run())
        while len(world.pool.groups) < 5:
            await asyncio.sleep(0.005)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert world.pool.leases
    world.generation.hold = lambda text: False
    world.pool.now = lambda: time.monotonic() + 2 * SETTINGS.lease_s
    stored = set(world.pool.groups)
    await world.run()
    assert len(world.pool.groups) == 40
    assert world.pool.receipts[GroupStatus.DUPLICATE] == 0
    assert stored <= set(world.pool.groups)


async def test_a_stopped_drain_gives_its_leases_back():
    world = World(40)
    world.generation.hold = AllButTheFirst(20)
    async with world.drain() as drain:
        running = asyncio.create_task(drain.run())
        while len(world.pool.groups) < 5:
            await asyncio.sleep(0.005)
        world.stopping = True
        report = await running
    assert report.ended == STOPPED
    assert not world.pool.leases
    assert not any(failure.counts_as_attempt for failure in world.pool.failures)
    assert len(world.pool.groups) + len(world.pool.waiting) == 40


async def test_a_claim_under_way_when_the_drain_is_stopped_is_given_back_too():
    world = World(8)
    world.pool.claims_take_s = 0.5
    async with world.drain() as drain:
        running = asyncio.create_task(drain.run())
        while not world.pool.leases:
            await asyncio.sleep(0.005)
        world.stopping = True
        report = await running
    assert report.ended == STOPPED
    assert report.abandoned == len(world.pool.waiting) == 8
    assert not world.pool.leases


async def test_leases_are_kept_while_the_engine_is_slow():
    world = World(2)
    world.generation.hold = lambda text: world.pool.heartbeats < 2
    await world.run(SETTINGS.model_copy(update={"lease_s": 0.3}))
    assert_all_stored(world)


async def test_a_group_after_its_lease_is_handed_in_all_the_same():
    world = World(1)

    def lose_the_lease(request, id_, text):  # noqa: ANN001
        world.pool.leases.clear()
        return PromptSamples(id=id_, samples=right_samples(request, text))

    world.generation.line = lose_the_lease
    assert (await world.run()).groups == {"late": 1}


async def test_a_lost_lease_that_is_ours_again_is_not_sampled_twice():
    world = World(8)
    world.generation.hold = lambda text: text == "7" and len(world.pool.claims) < 20
    # Leases end only once the others are stored: one that ends between sampling and hand-in may be sampled again, harmlessly.
    world.pool.now = lambda: float(len(world.pool.claims) * 1000) if len(world.pool.groups) == 7 else 0.0
    await world.run()
    assert len(world.pool.groups) == 8
    assert sum(len(request.prompts) for request in world.generation.requests) == 8
