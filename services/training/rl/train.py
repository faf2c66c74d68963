"""An RL run from standing order to trained model, publishing a new version every few steps; or from a snapshot, offline."""

from functools import partial
from typing import Any
from uuid import UUID

from services.training import ranks
from services.training.failures import RunError
from services.training.loop import Attempt
from services.training.policies import Publisher, load
from services.training.rl.advantages import BatchBaseline, RunningBaseline
from services.training.rl.offline import COLUMNS, offline_groups
from services.training.rl.source import BatchSource
from services.training.rl.trainer import RolloutTrainer, make_rl_trainer
from services.training.snapshots import bad_snapshot, read_snapshot, read_table
from shared.contracts.policies import Policy, WeightsState
from shared.contracts.recipe import RewardLevel, RlRecipe
from shared.contracts.runs import RunFailure, RunIn
from shared.contracts.snapshots import SnapshotRecipe
from shared.errors import HeadwaterError


def train_rl(attempt: Attempt, publisher: Publisher) -> Any:
    """Train on the run's order, or on its snapshot; returns the model.

    Raises: RunError `no_progress`, `batch_lost`, `bad_model`, `not_a_number`.
    """
    run, recipe = attempt.run, attempt.run.rl
    if run.order_id is None:
        return train_offline(attempt)
    if recipe is None:
        raise RunError(RunFailure.CRASHED, "The run has no recipe.")
    loaded = load(attempt.start, recipe.lora, bf16=recipe.bf16, kl=recipe.kl_beta > 0, seed=run.seed)
    trainer = make_rl_trainer(run, recipe, loaded, attempt.store.staging)
    start_version = attempt.start.policy.version
    trainer.source = BatchSource(attempt.lease, run.order_id, recipe, start_version, attempt.give_up_step)
    is_running = recipe.level is RewardLevel.PROCESS and recipe.baseline == "running"
    trainer.baseline = RunningBaseline() if is_running else BatchBaseline()

    def checkpointed(step: int) -> None:
        ranks.first(lambda: trainer.source.acknowledge(step))
        publish_if_due(attempt, publisher, trainer, step)

    def resumed(step: int) -> None:
        pending = [(UUID(batch_id), number) for batch_id, number in attempt.state.get("unacknowledged", [])]
        ranks.first(lambda: trainer.source.resume(step, pending))
        trainer.source.policy_version = newest_version(run, recipe, step, start_version)
        if "baseline" in attempt.state:
            trainer.baseline = RunningBaseline.restore(attempt.state["baseline"])
        publish_if_due(attempt, publisher, trainer, step)

    trainer.checkpointed, trainer.resumed = checkpointed, resumed
    trainer.follow(attempt, recipe.checkpoint_every_steps)
    trainer.train_to_the_end()
    return trainer.model


def train_offline(attempt: Attempt) -> Any:
    """Train on the run's snapshot. Raises: RunError `bad_snapshot`, `no_row_fits`, `bad_model`, `not_a_number`."""
    run, recipe = attempt.run, attempt.run.rl
    if recipe is None:
        raise RunError(RunFailure.CRASHED, "The run has no recipe.")
    snapshot = ranks.first(lambda: read_snapshot(attempt))
    if snapshot.recipe is not SnapshotRecipe.OFFLINE_RL:
        raise bad_snapshot(
            snapshot, f"is of recipe '{snapshot.recipe}'; RL trains on one of '{SnapshotRecipe.OFFLINE_RL}'"
        )
    loaded = load(attempt.start, recipe.lora, bf16=recipe.bf16, kl=recipe.kl_beta > 0, seed=run.seed)
    groups = offline_groups(read_table(snapshot, COLUMNS), recipe, run.seed, run.start_policy_id)
    rows = sum(len(numbers) for numbers in groups.groups)
    left_out = groups.table.num_rows - rows
    attempt.lease.log(0, {"groups": float(len(groups.groups)), "rows": float(rows), "rows_no_tokens": float(left_out)})
    trainer = make_rl_trainer(run, recipe, loaded, attempt.store.staging)
    trainer.plan_step = groups.plan
    trainer.follow(attempt, recipe.checkpoint_every_steps)
    trainer.train_to_the_end()
    return trainer.model


def publish_if_due(attempt: Attempt, publisher: Publisher, trainer: RolloutTrainer, step: int) -> None:
    """Publish an intermediate version, load it into the engine, and let the order sample with it; again is harmless."""
    run, order_id, recipe = attempt.run, attempt.run.order_id, trainer.recipe
    if order_id is None or step % recipe.publish_every_steps != 0 or step >= recipe.steps:
        return
    name, version = f"{run.publish_name}-step-{step}", newest_version(run, recipe, step, 0)
    policy = publisher.publish(trainer.model, name, version, step)
    trainer.source.policy_version = version
    if policy.weights is not WeightsState.KEPT:
        return  # the run went back behind it: its order samples with a newer version
    ranks.first(partial(use, attempt, order_id, policy))
    publisher.prune(version - recipe.max_staleness - 1)


def use(attempt: Attempt, order_id: UUID, policy: Policy) -> None:
    """Sample with this policy from now on, unless the order has a newer one already: the run went back behind that."""
    peers = attempt.lease.peers
    attempt.lease.wait(peers.make_live(policy.id))
    try:
        attempt.lease.wait(peers.use_policy(order_id, policy))
    except HeadwaterError as error:
        if error.code != "older_policy":
            raise


def newest_version(run: RunIn, recipe: RlRecipe, step: int, start_version: int) -> int:
    """The newest version that is published once the checkpoint of `step` is durable."""
    published = step // recipe.publish_every_steps
    return run.first_version + published - 1 if published else start_version


def final_version(run: RunIn) -> int:
    """The version of the policy that an RL run ends with: one more than its last intermediate one, if it has any."""
    if run.rl is None:
        raise ValueError("not an rl run")
    if run.order_id is None:
        return run.first_version
    return run.first_version + (run.rl.steps - 1) // run.rl.publish_every_steps
