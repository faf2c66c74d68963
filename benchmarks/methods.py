"""What teaches.py compares: the policies of a finished campaign, and those that other methods make out of the same questions.

Each method has the optimiser settings of the campaign's recipe; those of reinforcement learning have as many steps, groups a step and
answers a group as the campaign's own. They are evaluated on the same held-out questions, greedily, as the recipe says.
"""

from collections.abc import AsyncIterator
from uuid import UUID

from benchmarks.votes import Ballot
from benchmarks.work import Work
from shared.contracts.campaigns import StageName
from shared.contracts.generation import SamplingParameters
from shared.contracts.metrics import OrderMetrics
from shared.contracts.orders import OrderIn, OrderPurpose, QuestionSelection
from shared.contracts.policies import Policy
from shared.contracts.questions import QuestionState, Split
from shared.contracts.recipe import AdvantageEstimator, RewardLevel, RlRecipe
from shared.contracts.runs import RunIn, RunMethod
from shared.contracts.snapshots import SnapshotIn, SnapshotRecipe
from shared.contracts.verdicts import VerdictOutcome

OF_CAMPAIGN = {
    "base": StageName.EVAL_BASE,
    "sft-0": StageName.EVAL_SFT_0,
    "sft-1": StageName.EVAL_SFT_1,
    "outcome-rl": StageName.EVAL_RL,
}
SOLUTIONS_ONLY, GRPO = "solutions-only", "grpo"
WITHOUT_VERIFICATION = (SOLUTIONS_ONLY, GRPO)
NAMES = ("base", SOLUTIONS_ONLY, "sft-0", "sft-1", "outcome-rl", "process-rl", "offline-rl", GRPO)
VOTERS, VOTE_TEMPERATURE = 8, 0.7
USES_OF_A_GROUP = 2


async def policies(work: Work) -> AsyncIterator[tuple[str, Policy]]:
    """Each policy that the campaign did not make, under its name, as soon as there is one. The engine has it or will load it."""
    sft_1, rl = await work.policy_of(StageName.SFT_1), work.campaign.recipe.rl
    solutions_only = await _solutions_only(work)
    yield SOLUTIONS_ONLY, solutions_only
    grpo = _changed(rl, level=RewardLevel.OUTCOME, advantage=AdvantageEstimator.GRPO)
    yield GRPO, await _reinforced(work, GRPO, solutions_only, grpo)
    yield "process-rl", await _reinforced(work, "process-rl", sft_1, _changed(rl, level=RewardLevel.PROCESS))
    yield "offline-rl", await _offline(work, sft_1)


async def evaluated(work: Work, name: str, policy: Policy) -> OrderMetrics:
    """The metrics of its answers to the held-out questions."""
    section = work.campaign.recipe.eval
    order = await work.sampled(_on_held_out(work, f"eval-{name}", policy, section.k, section.sampling))
    return await work.peers.pool.order_metrics(order.id)


async def ballots(work: Work, name: str, policy: Policy) -> tuple[list[list[Ballot]], float]:
    """Sampled answers to each held-out question, to be voted on, and their mean tokens."""
    sampling = work.campaign.recipe.eval.sampling.model_copy(update={"temperature": VOTE_TEMPERATURE})
    order = await work.sampled(_on_held_out(work, f"vote-{name}", policy, VOTERS, sampling))
    metrics = await work.peers.pool.order_metrics(order.id)
    mean_tokens = metrics.overall.mean_tokens.value
    if mean_tokens is None:
        raise ValueError(f"no answer of {name} has tokens")
    verdicts = [[response.verdict for response in group.responses] for group in await work.groups(order)]
    return [
        [
            Ballot(
                verdict.answer if verdict.outcome is not VerdictOutcome.UNSCORED else None,
                verdict.outcome is VerdictOutcome.CORRECT,
            )
            for verdict in of_question
        ]
        for of_question in verdicts
    ], mean_tokens


def _on_held_out(work: Work, key: str, policy: Policy, k: int, sampling: SamplingParameters) -> OrderIn:
    return OrderIn(
        campaign_id=work.campaign.id,
        key=key,
        purpose=OrderPurpose.EVAL,
        policy_id=policy.id,
        policy_version=policy.version,
        k=k,
        sampling=sampling,
        selection=QuestionSelection(split=Split.EVAL, seed=work.campaign.recipe.seed),
    )


async def _solutions_only(work: Work) -> Policy:
    """SFT of the base on the teacher's solutions as they are, for as many steps as SFT-0 and SFT-1 have together."""
    recipe, order_id = work.campaign.recipe, work.stage(StageName.TEACH).order_id
    assert order_id is not None
    snapshot = await work.built(
        SnapshotIn(
            campaign_id=work.campaign.id,
            key=SOLUTIONS_ONLY,
            recipe=SnapshotRecipe.REJECTION,
            order_id=order_id,
            seed=recipe.seed,
        )
    )
    base = await work.policy_of(StageName.REGISTER)
    return await work.trained(
        RunIn(
            campaign_id=work.campaign.id,
            key=SOLUTIONS_ONLY,
            method=RunMethod.SFT,
            start_policy_id=base.id,
            snapshot_id=snapshot.id,
            sft=recipe.sft0.model_copy(update={"steps": recipe.sft0.steps + recipe.sft1.steps}),
            publish_name=SOLUTIONS_ONLY,
            first_version=base.version + 1,
            seed=recipe.seed,
        )
    )


async def _reinforced(work: Work, name: str, start: Policy, rl: RlRecipe) -> Policy:
    """Reinforcement learning from a policy on rollouts of its own, as the stage `rl` does it."""
    order = await work.ordered(
        _rollouts(work, name, start, rl).model_copy(
            update={"watermark_groups": rl.groups_ahead, "on_demand": rl.sync, "weights": rl.weights}
        )
    )
    policy = await work.trained(_rl_run(work, name, start, rl, order_id=order.id))
    await work.peers.pool.close_order(order.id)
    return policy


async def _offline(work: Work, start: Policy) -> Policy:
    """Offline RL by process: as many groups as RL's steps take, sampled at once, of which those of middling pass rate are used twice."""
    rl = _changed(work.campaign.recipe.rl, level=RewardLevel.PROCESS)
    request = _rollouts(work, "offline-rollouts", start, rl)
    selection = request.selection.model_copy(update={"limit": rl.steps * rl.groups_per_step})
    order = await work.sampled(request.model_copy(update={"selection": selection}))
    snapshot = await work.built(
        SnapshotIn(
            campaign_id=work.campaign.id,
            key="offline-rl",
            recipe=SnapshotRecipe.OFFLINE_RL,
            order_id=order.id,
            seed=work.campaign.recipe.seed,
        )
    )
    rl = _changed(rl, steps=offline_steps(snapshot.rows, rl))
    return await work.trained(_rl_run(work, "offline-rl", start, rl, snapshot_id=snapshot.id))


def offline_steps(rows: int, rl: RlRecipe) -> int:
    """Steps that use each group of a snapshot about twice, and no more than the run on rollouts has."""
    return min(rl.steps, max(1, round(USES_OF_A_GROUP * rows / (rl.k * rl.groups_per_step))))


def _rollouts(work: Work, key: str, start: Policy, rl: RlRecipe) -> OrderIn:
    return OrderIn(
        campaign_id=work.campaign.id,
        key=key,
        purpose=OrderPurpose.ROLLOUT,
        policy_id=start.id,
        policy_version=start.version,
        k=rl.k,
        sampling=rl.sampling,
        selection=QuestionSelection(
            states=tuple(QuestionState(state) for state in rl.states), seed=work.campaign.recipe.seed
        ),
    )


def _rl_run(
    work: Work, name: str, start: Policy, rl: RlRecipe, *, order_id: UUID | None = None, snapshot_id: UUID | None = None
) -> RunIn:
    return RunIn(
        campaign_id=work.campaign.id,
        key=name,
        method=RunMethod.RL,
        start_policy_id=start.id,
        order_id=order_id,
        snapshot_id=snapshot_id,
        rl=rl,
        publish_name=name,
        first_version=start.version + 1,
        seed=work.campaign.recipe.seed,
    )


def _changed(rl: RlRecipe, **changes: object) -> RlRecipe:
    """The recipe with these keys changed. Raises: ValidationError when they do not agree."""
    return RlRecipe.model_validate(rl.model_dump() | changes)
