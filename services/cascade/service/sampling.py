"""Stages that are one finite order: eval, teach, probe. The policy is made live before its order exists."""

import math
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.cascade.client import Peers
from services.cascade.models import StageRow
from services.cascade.service.progress import show_order
from services.cascade.service.stage import Context, failed, waiting
from shared.contracts.campaigns import StageName
from shared.contracts.orders import Order, OrderIn, OrderPurpose, OrderState, QuestionSelection, ReprobeSelection
from shared.contracts.questions import PoolCounts, Split
from shared.contracts.recipe import EvalRecipe, ProbeRecipe, Recipe, ReprobeRecipe, TeacherKind, TeachRecipe
from shared.errors import HeadwaterError

MAX_DEAD_SHARE = 0.1
EXTERNAL_FAILURE = "external_"  # how generation's codes for somebody else's server begin


@dataclass(frozen=True)
class Sampling:
    """One order of `purpose` with the policy that came out of `policy_of`, sampled as the recipe's `section` says.

    `split`: whose questions, None for both. `gathers`: it first waits for the recipe's minimum numbers of questions.
    """

    name: StageName
    purpose: OrderPurpose
    section: str
    policy_of: StageName
    split: Split | None = Split.TRAIN
    gathers: bool = False

    async def prepare(self, context: Context) -> dict[str, Any] | None:
        """The order, with its selection fixed by the questions there are now."""
        counts = await context.peers.pool.counts(context.campaign_id)
        if self.gathers:
            _check_minimum(counts, context.recipe)
        if self.purpose is OrderPurpose.EVAL and not counts.eval and not context.recipe.minimum_eval_questions:
            return None
        policy_id, policy_version = context.policy(self.policy_of)
        section: TeachRecipe | ProbeRecipe | EvalRecipe = getattr(context.recipe, self.section)
        order = OrderIn(
            campaign_id=context.campaign_id,
            key=context.key(self.name),
            purpose=self.purpose,
            policy_id=policy_id,
            policy_version=policy_version,
            k=1 if _is_reference_teacher(section) else section.k,
            sampling=section.sampling,
            selection=self._selection(section, context.recipe.seed, counts, policy_version),
            priority=context.recipe.priority,
        )
        return order.model_dump(mode="json")

    def _selection(
        self, section: TeachRecipe | ProbeRecipe | EvalRecipe, seed: int, counts: PoolCounts, policy_version: int
    ) -> QuestionSelection:
        if isinstance(section, TeachRecipe):
            return QuestionSelection(
                split=self.split,
                with_solution=_is_reference_teacher(section),
                limit=max(section.minimum_questions, math.ceil(section.fraction * counts.train)),
                seed=seed,
            )
        if isinstance(section, ReprobeRecipe):
            return reprobe_selection(section, seed, counts, policy_version)
        fraction = section.fraction if isinstance(section, ProbeRecipe) else 1.0
        return QuestionSelection(split=self.split, fraction=fraction, seed=seed)

    async def step(self, context: Context, stage: StageRow) -> bool:
        """Order once, then watch until every question is done or dead, and that an external teacher is still there."""
        pool = context.peers.pool
        if stage.order_id is None:
            order_in = OrderIn.model_validate(stage.request)
            await make_live(context.peers, order_in.policy_id)
            order = await pool.create_order(order_in)
            stage.order_id = order.id
        else:
            order = await pool.order(stage.order_id)
        show_order(stage, order)
        if order.state is OrderState.OPEN and order.total:
            if _has_external_teacher(order, context.recipe):
                await context.peers.generation.make_live(order.policy_id)
            return False
        check_finished(order, context.recipe)
        stage.tokens_sampled = (await pool.order_metrics(order.id)).tokens_sampled
        return True


def reprobe_selection(section: ReprobeRecipe, seed: int, counts: PoolCounts, policy_version: int) -> QuestionSelection:
    """Training questions within the budget: a random share of them, or those about which asking again tells most."""
    if section.choose == "random":
        return QuestionSelection(fraction=section.fraction, limit=section.max_questions or None, seed=seed)
    budget = max(1, math.ceil(section.fraction * counts.train))
    return QuestionSelection(
        limit=min(budget, section.max_questions or budget),
        seed=seed,
        reprobe=ReprobeSelection(policy_version=policy_version),
    )


async def make_live(peers: Peers, policy_id: UUID) -> None:
    """Every replica serves the policy.

    Raises: StageHaltedError when the teacher's own server is the one that fails: nobody here can bring it up.
    """
    try:
        await peers.generation.make_live(policy_id)
    except HeadwaterError as error:
        if error.code.startswith(EXTERNAL_FAILURE):
            raise failed(f"The teacher cannot be used: {error.message}") from error
        raise


def _check_minimum(counts: PoolCounts, recipe: Recipe) -> None:
    if counts.train < recipe.minimum_train_questions or counts.eval < recipe.minimum_eval_questions:
        raise waiting(
            f"{counts.train} of at least {recipe.minimum_train_questions} training questions and {counts.eval} of at least "
            f"{recipe.minimum_eval_questions} eval questions are in; submit more with POST /v1/questions."
        )


def _is_reference_teacher(section: TeachRecipe | ProbeRecipe | EvalRecipe) -> bool:
    return isinstance(section, TeachRecipe) and section.teacher.kind is TeacherKind.REFERENCE


def _has_external_teacher(order: Order, recipe: Recipe) -> bool:
    return order.purpose is OrderPurpose.TEACH and recipe.teach.teacher.kind is TeacherKind.OPENAI


def check_finished(order: Order, recipe: Recipe) -> None:
    """Raises: StageHaltedError when the order ended without one group, or too many questions were given up."""
    if not order.total:
        raise failed(f"Order '{order.key}' found no question: {_NO_QUESTION[order.purpose]}")
    if order.done and order.dead <= MAX_DEAD_SHARE * order.total:
        return
    if _has_external_teacher(order, recipe):
        teacher = recipe.teach.teacher
        raise failed(
            f"The teacher at {teacher.url} answered {order.done or 'none'} of {order.total} questions: check that it is up and "
            f"serves '{teacher.model}'; if it does, look for the reason in the sampling worker's log"
        )
    if order.done:
        raise failed(
            f"Order '{order.key}' gave up {order.dead} of its {order.total} questions, more than {MAX_DEAD_SHARE:.0%}, so "
            "what is left would not stand for all: look for the reason in the sampling worker's log and mend it"
        )
    raise failed(
        f"Order '{order.key}' was {order.state} with none of its {order.total} questions sampled ({order.dead} given up): "
        "look for the reason in the sampling worker's log"
    )


_NO_QUESTION = {
    OrderPurpose.TEACH: "no training question fits the teacher; submit some with a 'solution'",
    OrderPurpose.PROBE: "submit training questions (split 'train')",
    OrderPurpose.EVAL: "submit held-out questions (split 'eval')",
    OrderPurpose.VERIFY: "no training question has a judged answer",
    OrderPurpose.ROLLOUT: "submit training questions (split 'train')",
}
