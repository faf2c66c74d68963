"""Stages that are one run: SFT on a snapshot, RL on a standing order of rollouts."""

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from services.cascade.models import StageRow
from services.cascade.service.progress import RUN_ENDED, show_run
from services.cascade.service.stage import Context, WayOut, failed
from shared.contracts.campaigns import StageName
from shared.contracts.orders import OrderIn, OrderPurpose, QuestionSelection
from shared.contracts.questions import QuestionState
from shared.contracts.runs import Run, RunFailure, RunIn, RunMethod, RunState

# Ends that would only repeat themselves: the trainer's sentence names what to change in the recipe.
_RECIPE_FAILURES = (RunFailure.OUT_OF_MEMORY, RunFailure.NOT_A_NUMBER, RunFailure.NO_ROW_FITS)


@dataclass(frozen=True)
class SupervisedRun:
    """SFT of the policy of `start_from` on the snapshot of `snapshot_of`, by the recipe's `section`."""

    name: StageName
    section: Literal["sft0", "sft1"]
    start_from: StageName
    snapshot_of: StageName
    version: int

    async def prepare(self, context: Context) -> dict[str, Any]:
        """The run."""
        run = RunIn(
            campaign_id=context.campaign_id,
            key=context.key(self.name),
            method=RunMethod.SFT,
            start_policy_id=context.policy(self.start_from)[0],
            snapshot_id=context.stages[self.snapshot_of].snapshot_id,
            sft=context.recipe.sft0 if self.section == "sft0" else context.recipe.sft1,
            publish_name=context.key(self.name),
            first_version=self.version,
            seed=context.recipe.seed,
        )
        return run.model_dump(mode="json")

    async def step(self, context: Context, stage: StageRow) -> bool:
        """Order once, then watch until the run has ended."""
        run = await _run(context, stage, RunIn.model_validate(stage.request))
        return run.state in RUN_ENDED and _publish(stage, run)


@dataclass(frozen=True)
class ReinforcementRun:
    """RL from the policy of `start_from`: a standing order of rollouts, which ends with the run that eats them."""

    name: StageName
    start_from: StageName
    version: int

    async def prepare(self, context: Context) -> dict[str, Any]:
        """The standing order; there must be questions for it."""
        rl = context.recipe.rl
        await self._check_questions(context)
        policy_id, policy_version = context.policy(self.start_from)
        order = OrderIn(
            campaign_id=context.campaign_id,
            key=context.key(self.name),
            purpose=OrderPurpose.ROLLOUT,
            policy_id=policy_id,
            policy_version=policy_version,
            k=rl.k,
            sampling=rl.sampling,
            selection=QuestionSelection(
                states=tuple(QuestionState(state) for state in rl.states), seed=context.recipe.seed
            ),
            watermark_groups=rl.groups_ahead,
            on_demand=rl.sync,
            weights=rl.weights,
            priority=context.recipe.priority,
        )
        return order.model_dump(mode="json")

    async def step(self, context: Context, stage: StageRow) -> bool:
        """Order rollouts and the run once, watch until the run has ended, then close the order."""
        pool = context.peers.pool
        order_in = OrderIn.model_validate(stage.request)
        if stage.order_id is None:
            await context.peers.generation.make_live(order_in.policy_id)
            stage.order_id = (await pool.create_order(order_in)).id
        run = await _run(context, stage, self._run_in(context, order_in, stage.order_id))
        if run.state not in RUN_ENDED:
            return False
        await pool.close_order(stage.order_id)
        if run.state is RunState.SUCCEEDED:
            stage.tokens_sampled = (await pool.order_metrics(stage.order_id)).tokens_sampled
        return _publish(stage, run)

    def _run_in(self, context: Context, order: OrderIn, order_id: UUID) -> RunIn:
        return RunIn(
            campaign_id=context.campaign_id,
            key=order.key,
            method=RunMethod.RL,
            start_policy_id=order.policy_id,
            order_id=order_id,
            rl=context.recipe.rl,
            publish_name=order.key,
            first_version=self.version,
            seed=context.recipe.seed,
        )

    async def _check_questions(self, context: Context) -> None:
        counts = (await context.peers.pool.counts(context.campaign_id)).model_dump()
        states = context.recipe.rl.states
        if any(counts[state] for state in states):
            return
        there = ", ".join(f"{counts[state]} {state}" for state in QuestionState if counts[state]) or "none at all"
        raise failed(
            f"RL has nothing to learn from: no question is {' or '.join(states)} for the newest policy (there are: {there}); "
            "widen rl.states or move the router's thresholds",
            WayOut.ANOTHER_CAMPAIGN,
        )


async def _run(context: Context, stage: StageRow, run_in: RunIn) -> Run:
    """The stage's run, made when it is missing, with its progress shown."""
    training = context.peers.training
    if stage.run_id is None:
        run = await training.create_run(run_in)
        stage.run_id = run.id
    else:
        run = await training.run(stage.run_id)
    show_run(stage, run)
    return run


def _publish(stage: StageRow, run: Run) -> bool:
    """Take over the policy of a run that succeeded. Raises: StageHaltedError for any other end."""
    if run.state is RunState.CANCELLED:
        raise failed(f"Run '{run.key}' was cancelled")
    if run.state is RunState.FAILED:
        raise failed(
            f"Run '{run.key}' failed ({run.failure or 'no reason given'}) at step {run.step}: {run.message}",
            WayOut.ANOTHER_CAMPAIGN if run.failure in _RECIPE_FAILURES else WayOut.RESUME,
        )
    if run.policy_id is None:
        raise failed(f"Run '{run.key}' succeeded without publishing a policy")
    stage.policy_id = run.policy_id
    stage.policy_version = run.first_version if run.policy_version is None else run.policy_version
    return True
