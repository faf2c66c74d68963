"""Whole runs through the trainer's own process, with a model of a few thousand parameters."""

import asyncio
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from services.training import repository, service
from services.training.attempt import TrainerCommand, attempt_run, trainer_command
from services.training.execute import train_and_publish
from services.training.failures import RunError
from services.training.lease import RunLease
from services.training.settings import TrainingSettings
from services.training.sft.rows import tokenise_prompt
from shared.contracts.base import pack_float32, pack_int32, unpack_float32, unpack_int32
from shared.contracts.generation import FinishReason
from shared.contracts.orders import Group, ResponseIn
from shared.contracts.policies import PolicyKind, WeightsState
from shared.contracts.questions import Question, QuestionKind, QuestionState, Split
from shared.contracts.recipe import LoraRecipe, Optimizer, RatioUnit, RewardLevel, RlRecipe, SftRecipe
from shared.contracts.runs import Run, RunFailure, RunIn, RunMethod, RunState
from shared.contracts.snapshots import SnapshotRecipe
from shared.contracts.verdicts import ScoredSegment, SegmentKind, Verdict, VerdictOutcome
from shared.db import Database
from shared.errors import HeadwaterError
from shared.trajectories.segments import Round, assemble
from tests.integration.training.fakes import NOW, FakePeers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def trajectory(number: int, *, right: bool = True) -> Any:
    answer = number + 2 if right else number + 3
    verdict = "correct" if right else "incorrect"
    attempt = f"{number}+2={answer}\n\\boxed{{{answer}}}"
    return assemble([Round(attempt, f"{answer}-2={number}\nTherefore, the answer is {verdict}.")])


def snapshot_rows(count: int) -> list[dict[str, Any]]:
    rows = []
    for number in range(count):
        built = trajectory(number)
        segments = [{"kind": s.kind.value, "start": s.start, "end": s.end, "trained": True} for s in built.segments]
        prompt = [{"role": "user", "content": f"Calculate {number}+2."}]
        completion = [{"role": "assistant", "content": built.text}]
        row = {"question_id": str(uuid4()), "prompt": prompt, "completion": completion}
        rows.append(row | {"segments": segments, "rounds": 1})
    return rows


async def create(database: Database, run: RunIn) -> Run:
    async with database.transaction() as session:
        return (await service.create_run(session, run))[0]


async def read(database: Database, run_id: UUID) -> Run:
    async with database.transaction() as session:
        return await service.get_run(session, run_id)


async def losses(database: Database, run_id: UUID) -> dict[int, float]:
    async with database.transaction() as session:
        metrics = await service.list_metrics(session, run_id, -1, 1000)
    return {metric.step: metric.values["loss"] for metric in metrics if "loss" in metric.values}


async def logged(database: Database, run_id: UUID) -> dict[int, dict[str, float]]:
    """The logged points of a run, without the row counts of step 0 and what depends on the clock."""
    async with database.transaction() as session:
        metrics = await service.list_metrics(session, run_id, 0, 1000)
    return {
        metric.step: {
            name: value for name, value in metric.values.items() if name not in ("tokens_per_s", "num_tokens")
        }
        for metric in metrics
    }


async def attempt(run: Run, database: Database, settings: TrainingSettings) -> None:
    """One attempt inside this process, which has torch loaded already."""
    async with database.transaction() as session:
        row = await repository.claim_run(session, run.id, "test", settings.training_lease_s)
    assert row is not None
    fence = row.fence

    def train() -> None:
        with RunLease(settings, run.id, fence, lost=lambda: pytest.fail("the lease was lost")) as lease:
            train_and_publish(lease, settings)

    await asyncio.to_thread(train)


def remove_checkpoint(settings: TrainingSettings, step: int) -> None:
    """As if it were damaged: the run goes on from the one before."""
    for directory in list(Path(settings.artifacts_url).rglob(f"checkpoint-{step:08d}-*")):
        shutil.rmtree(directory)


def sft_run(campaign_id: UUID, peers: FakePeers, model: Path, directory: Path, key: str, **recipe: Any) -> RunIn:
    snapshot = peers.add_snapshot(campaign_id, directory, snapshot_rows(40))
    values = {"steps": 8, "batch_size": 8, "learning_rate": 1e-2, "checkpoint_every_steps": 3} | recipe
    return RunIn(
        campaign_id=campaign_id,
        key=key,
        method=RunMethod.SFT,
        start_policy_id=peers.add_base(campaign_id, model).id,
        snapshot_id=snapshot.id,
        sft=SftRecipe(**values),
        publish_name=key,
        first_version=1,
    )


def rollouts(model_directory: Path, count: int, k: int, right_every: int = 2) -> list[Group]:
    """Groups as the pool hands them out, the log-probabilities computed with the start policy itself.

    One answer in `right_every` is right; 1: all are.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_directory)
    model = AutoModelForCausalLM.from_pretrained(model_directory)
    groups = []
    for number in range(count):
        prompt_ids = tokenise_prompt(tokenizer, f"Calculate {number}+2.")
        responses = []
        for sample in range(k):
            right = sample % right_every == 0
            built = trajectory(number, right=right)
            encoded = tokenizer(built.text, add_special_tokens=False, return_offsets_mapping=True)
            token_ids = [*encoded["input_ids"], tokenizer.eos_token_id]
            with torch.no_grad():
                logits = model(torch.tensor([prompt_ids + token_ids])).logits[0, len(prompt_ids) - 1 : -1]
            logprobs = logits.log_softmax(-1).gather(1, torch.tensor(token_ids)[:, None])[:, 0].tolist()
            reward = 1.0 if right else -1.0
            segments = tuple(
                ScoredSegment(kind=SegmentKind(s.kind), start=s.start, end=s.end, reward=reward) for s in built.segments
            )
            outcome = VerdictOutcome.CORRECT if right else VerdictOutcome.INCORRECT
            responses.append(
                ResponseIn(
                    text=built.text,
                    finish_reason=FinishReason.STOP,
                    token_ids=pack_int32(token_ids),
                    logprobs=pack_float32(logprobs),
                    token_ends=pack_int32([*(end for _, end in encoded["offset_mapping"]), len(built.text)]),
                    verdict=Verdict(outcome=outcome, segments=segments, verifier="math@1"),
                )
            )
        groups.append(group_of(number, prompt_ids, responses))
    return groups


def group_of(number: int, prompt_ids: list[int], responses: list[ResponseIn]) -> Group:
    question = Question(
        id=uuid4(),
        campaign_id=uuid4(),
        text=f"Calculate {number}+2.",
        answer=str(number + 2),
        kind=QuestionKind.NUMERIC,
        split=Split.TRAIN,
        domain="arithmetic",
        state=QuestionState.HARD,
        tiny=False,
    )
    return Group(
        id=uuid4(),
        order_id=uuid4(),
        question=question,
        policy_id=uuid4(),
        policy_version=0,
        prompt_token_ids=pack_int32(prompt_ids),
        responses=tuple(responses),
        created_at=NOW,
    )


def rl_run(campaign_id: UUID, peers: FakePeers, model: Path, **recipe: Any) -> RunIn:
    values = {"steps": 3, "k": 4, "groups_per_step": 2, "publish_every_steps": 1, "lora": LoraRecipe(rank=4, alpha=8)}
    return RunIn(
        campaign_id=campaign_id,
        key="rl",
        method=RunMethod.RL,
        start_policy_id=peers.add_base(campaign_id, model).id,
        order_id=uuid4(),
        rl=RlRecipe(**(values | recipe)),
        publish_name="rl",
        first_version=7,
    )


async def test_rl_run_publishes_versions_and_acknowledges_what_its_checkpoints_have(
    database: Database, settings: TrainingSettings, peers: FakePeers, tiny_model: Path, campaign_id: UUID
) -> None:
    peers.waiting = await asyncio.to_thread(rollouts, tiny_model, 6, 4)
    # The engine breaks while it loads the first version: the checkpoint is durable, the version is not live.
    peers.broken_loads = 1
    recipe = rl_run(campaign_id, peers, tiny_model, level=RewardLevel.PROCESS, micro_batch_size=3, learning_rate=1e-2)
    run = await create(database, recipe)
    with pytest.raises(HeadwaterError):
        await attempt(run, database, settings)
    async with database.transaction() as session:
        await repository.requeue(session, run.id, 1, "", 0.0, blameless=True)
    await attempt(run, database, settings)
    done = await read(database, run.id)
    assert (done.state, done.step, done.attempts) == (RunState.SUCCEEDED, 3, 2), done.message
    # Step 0 again after the crash: the checkpoint was written before its acknowledgement, and repeating is harmless.
    assert peers.acknowledged == [0, 0, 1, 2]
    assert peers.released_from == [1]
    assert [order.policy_version for order in peers.order_policies] == [7, 8]
    assert [request.policy_version for request in peers.requests] == [0, 7, 8]
    assert done.policy_id is not None
    policy = peers.policies[done.policy_id]
    assert (policy.kind, policy.name, policy.version) == (PolicyKind.ADAPTER, "rl", 9)
    assert policy.base_policy_id == recipe.start_policy_id
    assert [peers.policies[live].name for live in peers.live] == ["rl-step-1", "rl-step-2"]
    assert peers.pruned == ["rl-step-1"], "not the last, nor what the order samples with"
    async with database.transaction() as session:
        metrics = {metric.step: metric.values for metric in await service.list_metrics(session, run.id, 0, 10)}
    assert sorted(metrics) == [1, 2, 3]
    # Before the first update the trainer computes the very log-probabilities that the engine had.
    assert metrics[1]["ratio_mean"] == pytest.approx(1.0, abs=1e-4)
    assert metrics[1]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics[1]["engine_logprob_gap"] == pytest.approx(0.0, abs=1e-5)
    assert metrics[3]["kl"] > 0
    assert "engine_logprob_gap" not in metrics[3], "what an older version sampled says nothing about the engine"
    assert metrics[1]["accuracy"] == 0.5
    assert metrics[3]["staleness_mean"] == 8.0


async def test_rl_run_whose_batch_went_to_others_goes_back_to_before_it(
    database: Database, settings: TrainingSettings, peers: FakePeers, tiny_model: Path, campaign_id: UUID
) -> None:
    peers.waiting = await asyncio.to_thread(rollouts, tiny_model, 10, 4)
    peers.lost = {3}
    recipe = rl_run(campaign_id, peers, tiny_model, steps=4, publish_every_steps=2)
    run = await create(database, recipe)
    with pytest.raises(RunError) as ended:
        await attempt(run, database, settings)
    assert ended.value.failure is RunFailure.BATCH_LOST
    assert "step 4" in ended.value.sentence
    assert peers.acknowledged == [0, 1, 2]
    first = peers.leased[2]
    async with database.transaction() as session:
        await repository.requeue(session, run.id, 1, "", 0.0, blameless=True)
    await attempt(run, database, settings)
    done = await read(database, run.id)
    assert done.state is RunState.SUCCEEDED, done.message
    # Step 2 is this run's, and trained on from weights that have not seen it; step 3 has groups that nobody else took.
    assert peers.leased[2] == first
    assert peers.acknowledged == [0, 1, 2, 0, 1, 2, 3]
    assert [request.step for request in peers.requests] == [0, 1, 2, 3, 2, 3]
    assert peers.waiting == []


@pytest.mark.parametrize("weights", [WeightsState.KEPT, WeightsState.PRUNED])
async def test_rl_run_takes_a_version_that_it_published_before_as_it_is(
    database: Database,
    settings: TrainingSettings,
    peers: FakePeers,
    tiny_model: Path,
    campaign_id: UUID,
    weights: WeightsState,
) -> None:
    """It comes to the step of a published version again, with weights that differ in their last bits. One that was pruned
    is neither published again nor loaded, and the order never goes back, however far the run does.
    """
    peers.waiting = await asyncio.to_thread(rollouts, tiny_model, 8, 4)
    peers.lost = {2}
    run = await create(database, rl_run(campaign_id, peers, tiny_model))
    with pytest.raises(RunError):
        await attempt(run, database, settings)
    [published] = [policy for policy in peers.policies.values() if policy.name == "rl-step-2"]
    peers.policies[published.id] = published.model_copy(update={"content_hash": "0" * 64, "weights": weights})
    if weights is WeightsState.KEPT:
        remove_checkpoint(settings, 2)
    async with database.transaction() as session:
        await repository.requeue(session, run.id, 1, "", 0.0, blameless=True)
    await attempt(run, database, settings)
    done = await read(database, run.id)
    assert (done.state, done.policy_version) == (RunState.SUCCEEDED, 9), done.message
    is_kept = weights is WeightsState.KEPT
    assert [order.policy_version for order in peers.order_policies] == ([7, 8, 8] if is_kept else [7, 8])
    assert [peers.policies[live].version for live in peers.live] == ([7, 8, 7, 8] if is_kept else [7, 8])
    assert peers.policies[published.id].content_hash == "0" * 64


async def test_rl_run_whose_name_is_taken_fails_with_the_name(
    database: Database, settings: TrainingSettings, peers: FakePeers, tiny_model: Path, campaign_id: UUID
) -> None:
    peers.waiting = await asyncio.to_thread(rollouts, tiny_model, 2, 4)
    recipe = rl_run(campaign_id, peers, tiny_model, steps=1)
    other = peers.policies[recipe.start_policy_id].model_copy(update={"id": uuid4(), "name": "rl", "run_id": uuid4()})
    peers.policies[other.id] = other
    run = await create(database, recipe)
    with pytest.raises(RunError, match="called 'rl' already") as failed:
        await attempt(run, database, settings)
    assert failed.value.failure is RunFailure.POLICY_EXISTS


@pytest.mark.parametrize("unit", list(RatioUnit))
async def test_rl_run_of_the_whole_model_at_outcome_level(
    database: Database,
    settings: TrainingSettings,
    peers: FakePeers,
    tiny_model: Path,
    campaign_id: UUID,
    unit: RatioUnit,
) -> None:
    peers.waiting = await asyncio.to_thread(rollouts, tiny_model, 4, 4)
    options: dict[str, Any] = {"ratio": unit, "advantage": "grpo"} if unit is not RatioUnit.RESPONSE else {}
    recipe = rl_run(campaign_id, peers, tiny_model, lora=None, steps=2, publish_every_steps=2, **options)
    run = await create(database, recipe)
    await attempt(run, database, settings)
    done = await read(database, run.id)
    assert (done.state, done.policy_version) == (RunState.SUCCEEDED, 7), done.message
    assert done.policy_id is not None
    assert peers.policies[done.policy_id].kind is PolicyKind.CHECKPOINT
    assert (peers.acknowledged, peers.live) == ([0, 1], [])
    async with database.transaction() as session:
        metrics = {metric.step: metric.values for metric in await service.list_metrics(session, run.id, 0, 10)}
    assert metrics[1]["ratio_mean"] == pytest.approx(1.0, abs=1e-4)
    assert metrics[1]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics[2]["kl"] > 0


@pytest.mark.parametrize("optimizer", list(Optimizer))
async def test_rl_step_on_groups_of_equal_rewards_moves_no_weight(
    database: Database,
    settings: TrainingSettings,
    peers: FakePeers,
    tiny_model: Path,
    campaign_id: UUID,
    optimizer: Optimizer,
) -> None:
    """The first step gives the optimiser a momentum; the second batch teaches nothing."""
    telling = await asyncio.to_thread(rollouts, tiny_model, 2, 4)
    peers.waiting = [*telling, *await asyncio.to_thread(rollouts, tiny_model, 2, 4, 1)]
    recipe = rl_run(campaign_id, peers, tiny_model, lora=None, steps=2, optimizer=optimizer, weight_decay=0.1)
    run = await create(database, recipe)
    await attempt(run, database, settings)
    done = await read(database, run.id)
    assert done.state is RunState.SUCCEEDED, done.message
    first = next(policy for policy in peers.policies.values() if policy.name == "rl-step-1")
    last = peers.policies[done.policy_id] if done.policy_id else None
    assert last is not None
    assert first.content_hash == last.content_hash
    assert first.content_hash != peers.policies[recipe.start_policy_id].content_hash


def offline_rows(groups: list[Group]) -> list[dict[str, Any]]:
    """The groups as the pool writes them into an `offline-rl` snapshot; every place of the one accuracy bin has a mean of 0."""
    return [
        {
            "group_id": str(group.id),
            "policy_id": str(group.policy_id),
            "reward": 1.0 if response.verdict.outcome is VerdictOutcome.CORRECT else -1.0,
            "segments": [
                {
                    "start": s.start,
                    "end": s.end,
                    "kind": s.kind.value,
                    "trained": True,
                    "reward": s.reward,
                    "baseline": 0.0,
                }
                for s in response.verdict.segments
            ],
            "rounds": 1,
            "prompt_token_ids": unpack_int32(group.prompt_token_ids),
            "token_ids": unpack_int32(response.token_ids),
            "logprobs": unpack_float32(response.logprobs),
            "token_ends": unpack_int32(response.token_ends),
        }
        for group in groups
        for response in group.responses
    ]


@pytest.mark.parametrize("level", list(RewardLevel))
async def test_rl_run_from_a_snapshot_leases_nothing_and_publishes_one_policy(
    database: Database,
    settings: TrainingSettings,
    peers: FakePeers,
    tiny_model: Path,
    tmp_path: Path,
    campaign_id: UUID,
    level: RewardLevel,
) -> None:
    groups = await asyncio.to_thread(rollouts, tiny_model, 4, 4)
    snapshot = peers.add_snapshot(campaign_id, tmp_path, offline_rows(groups), SnapshotRecipe.OFFLINE_RL)
    source = {"order_id": None, "snapshot_id": snapshot.id}
    online = rl_run(campaign_id, peers, tiny_model, level=level, lora=None, learning_rate=1e-2)
    run = await create(database, RunIn.model_validate(online.model_dump() | source))
    await attempt(run, database, settings)
    done = await read(database, run.id)
    assert (done.state, done.step, done.policy_version) == (RunState.SUCCEEDED, 3, 7), done.message
    assert (peers.requests, peers.acknowledged, peers.live) == ([], [], [])
    assert [policy.name for policy in peers.policies.values()] == ["base", "rl"]
    async with database.transaction() as session:
        metrics = {metric.step: metric.values for metric in await service.list_metrics(session, run.id, -1, 10)}
    assert metrics[0] == {"groups": 4.0, "rows": 16.0, "rows_no_tokens": 0.0}
    assert metrics[1]["ratio_mean"] == pytest.approx(1.0, abs=1e-4)
    assert metrics[1]["accuracy"] == 0.5
    assert metrics[3]["kl"] > 0


async def test_rl_run_from_a_snapshot_for_something_else_is_refused(
    database: Database,
    settings: TrainingSettings,
    peers: FakePeers,
    tiny_model: Path,
    tmp_path: Path,
    campaign_id: UUID,
) -> None:
    snapshot = peers.add_snapshot(campaign_id, tmp_path, snapshot_rows(4))
    source = {"order_id": None, "snapshot_id": snapshot.id}
    run = await create(database, RunIn.model_validate(rl_run(campaign_id, peers, tiny_model).model_dump() | source))
    with pytest.raises(RunError, match="is of recipe 'distill'; RL trains on one of 'offline-rl'") as failed:
        await attempt(run, database, settings)
    assert failed.value.failure is RunFailure.BAD_SNAPSHOT


async def test_rl_run_without_rollouts_fails_with_no_progress(
    database: Database, settings: TrainingSettings, peers: FakePeers, tiny_model: Path, campaign_id: UUID
) -> None:
    run = await create(database, rl_run(campaign_id, peers, tiny_model, lora=None, kl_beta=0.0, stall_timeout_s=0.2))
    with pytest.raises(RunError) as failed:
        await attempt(run, database, settings)
    assert failed.value.failure is RunFailure.NO_PROGRESS
    assert "2 groups" in failed.value.sentence


async def test_snapshot_that_was_changed_is_refused(
    database: Database,
    settings: TrainingSettings,
    peers: FakePeers,
    tiny_model: Path,
    tmp_path: Path,
    campaign_id: UUID,
) -> None:
    recipe = sft_run(campaign_id, peers, tiny_model, tmp_path, "sft-0")
    assert recipe.snapshot_id is not None
    snapshot = peers.snapshots[recipe.snapshot_id]
    peers.snapshots[snapshot.id] = snapshot.model_copy(update={"content_hash": "0" * 64})
    run = await create(database, recipe)
    with pytest.raises(RunError) as failed:
        await attempt(run, database, settings)
    assert failed.value.failure is RunFailure.BAD_SNAPSHOT


async def test_learning_rate_that_explodes_is_named(
    database: Database,
    settings: TrainingSettings,
    peers: FakePeers,
    tiny_model: Path,
    tmp_path: Path,
    campaign_id: UUID,
) -> None:
    options = {"learning_rate": 1e30, "max_grad_norm": 1e9, "warmup_fraction": 0.0}
    run = await create(database, sft_run(campaign_id, peers, tiny_model, tmp_path, "sft-0", **options))
    with pytest.raises(RunError) as failed:
        await attempt(run, database, settings)
    assert failed.value.failure is RunFailure.NOT_A_NUMBER


async def test_sft_run_learns_and_publishes_a_checkpoint(
    database: Database,
    settings: TrainingSettings,
    peers: FakePeers,
    tiny_model: Path,
    tmp_path: Path,
    campaign_id: UUID,
) -> None:
    run = await create(database, sft_run(campaign_id, peers, tiny_model, tmp_path, "sft-0", kl_beta=0.01))
    await attempt(run, database, settings)
    done = await read(database, run.id)
    assert (done.state, done.step, done.failure) == (RunState.SUCCEEDED, 8, None), done.message
    assert done.tokens > 8 * 8 * 10
    assert done.policy_id is not None
    policy = peers.policies[done.policy_id]
    assert (policy.kind, policy.name, policy.version, policy.run_id) == (PolicyKind.CHECKPOINT, "sft-0", 1, run.id)
    assert {Path(name).suffix for name in os.listdir(policy.uri)} <= {".safetensors", ".json", ".jinja", ""}  # noqa: PTH208
    by_step = await losses(database, run.id)
    assert sorted(by_step) == list(range(1, 9))
    assert by_step[8] < by_step[1] - 0.5


@pytest.mark.parametrize(("optimizer", "points"), [(Optimizer.ADAMW, 200), (Optimizer.MUON, 2)])
async def test_killed_sft_run_goes_on_from_its_checkpoint_as_if_nothing_had_happened(
    database: Database,
    settings: TrainingSettings,
    peers: FakePeers,
    tiny_model: Path,
    tmp_path: Path,
    campaign_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
    optimizer: Optimizer,
    points: int,
) -> None:
    """Two logged points of eight steps: the one of step 4 is about steps on both sides of the checkpoint of step 3."""
    from services.training.sft import trainer

    monkeypatch.setattr(trainer, "LOGGED_POINTS", points)

    def recipe(key: str) -> RunIn:
        return sft_run(campaign_id, peers, tiny_model, tmp_path, key, optimizer=optimizer, weight_decay=0.01)

    undisturbed = await create(database, recipe("undisturbed"))
    await attempt(undisturbed, database, settings)
    killed = await create(database, recipe("killed"))
    await attempt_run(
        killed.id, settings, "test", threading.Event(), at_step_5("os.kill(os.getpid(), signal.SIGKILL)", points)
    )
    half_way = await read(database, killed.id)
    assert (half_way.state, half_way.attempts) == (RunState.QUEUED, 1)
    assert "signal 9" in half_way.message
    await attempt(killed, database, settings)
    resumed = await read(database, killed.id)
    assert (resumed.state, resumed.attempts) == (RunState.SUCCEEDED, 2), resumed.message
    expected = await read(database, undisturbed.id)
    assert resumed.tokens == expected.tokens
    expected_points, resumed_points = await logged(database, undisturbed.id), await logged(database, killed.id)
    assert sorted(expected_points) == (list(range(1, 9)) if points == 200 else [1, 4, 8])
    assert resumed_points == expected_points


async def test_hung_trainer_ends_itself_while_its_heartbeat_goes_on(
    database: Database,
    settings: TrainingSettings,
    peers: FakePeers,
    tiny_model: Path,
    tmp_path: Path,
    campaign_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADWATER_TRAINING_STEP_TIMEOUT_S", "5")
    run = await create(database, sft_run(campaign_id, peers, tiny_model, tmp_path, "sft-0"))
    await attempt_run(run.id, settings, "test", threading.Event(), at_step_5("time.sleep(600)"))
    ended = await read(database, run.id)
    assert (ended.state, ended.step) == (RunState.QUEUED, 5)
    assert "The trainer hung" in ended.message


def at_step_5(act: str, points: int = 200) -> TrainerCommand:
    """A trainer that does this in its sixth step, and logs this many points."""

    def command(run_id: UUID, fence: int, result: Path) -> Sequence[str]:
        python, _, _, *arguments = trainer_command(run_id, fence, result)
        return [python, "-c", AT_STEP_5.replace("COUNT", str(points)).replace("ACT", act), *arguments]

    return command


AT_STEP_5 = """
import os, signal, time
from services.training import execute, loop, repository
execute.leave_vllm_out()
from services.training.sft import trainer
trainer.LOGGED_POINTS = COUNT
original = loop.Trainer.training_step
def training_step(self, *arguments, **options):
    if self.state.global_step == 5:
        ACT
    return original(self, *arguments, **options)
loop.Trainer.training_step = training_step
execute.main()
"""


async def test_a_run_writes_its_curves_for_tensorboard(
    database: Database,
    settings: TrainingSettings,
    peers: FakePeers,
    tiny_model: Path,
    campaign_id: UUID,
    tmp_path: Path,
) -> None:
    run = await create(database, sft_run(campaign_id, peers, tiny_model, tmp_path, "curves", steps=2))
    await attempt(run, database, settings.model_copy(update={"training_report_to": "tensorboard"}))
    events = EventAccumulator(str(tmp_path / "artifacts" / "runs" / str(run.id) / "tensorboard")).Reload()
    assert [point.step for point in events.Scalars("train/loss")] == [1, 2]


async def test_a_tracker_that_is_not_installed_is_named(
    database: Database,
    settings: TrainingSettings,
    peers: FakePeers,
    tiny_model: Path,
    campaign_id: UUID,
    tmp_path: Path,
) -> None:
    run = await create(database, sft_run(campaign_id, peers, tiny_model, tmp_path, "nowhere", steps=2))
    with pytest.raises(RunError, match="HEADWATER_TRAINING_REPORT_TO is 'nobody'"):
        await attempt(run, database, settings.model_copy(update={"training_report_to": "nobody"}))
