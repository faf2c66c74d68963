"""Stages that are one finite order: eval, teach, probe. The policy is made live before its order exists."""

import math
from dataclasses import dataclass
from typing import Any

from services.cascade.client import Peers
from services.cascade.models import StageRow
from services.cascade.service.progress import show_order
from services.cascade.service.stage import Context, failed, waiting
from shared.contracts.campaigns import StageName
from shared.contracts.orders import Order, OrderIn, OrderPurpose, OrderState, QuestionSelection
from shared.contracts.questions import PoolCounts, Split
from shared.contracts.recipe import Recipe, TeacherKind
from shared.errors import HeadwaterError

EXTERNAL_FAILURE = "external_"  # how generation's codes for somebody else's server begin


@dataclass(frozen=True)
class Sampling:
    """One order of `purpose` with the policy that came out of `policy_of`.

    `gathers`: it first waits for the recipe's minimum numbers of questions.
    """

    name: StageName
    purpose: OrderPurpose
    policy_of: StageName
    gathers: bool = False

    async def prepare(self, context: Context) -> dict[str, Any] | None:
        """The order, with its selection fixed by the questions there are now."""
        counts = await context.peers.pool.counts(context.campaign_id)
        if self.gathers:
            _check_minimum(counts, context.recipe)
        if self.purpose is OrderPurpose.EVAL and not counts.eval and not context.recipe.minimum_eval_questions:
            return None
        policy_id, policy_version = context.policy(self.policy_of)
        k, sampling = _responses(self.purpose, context.recipe)
        order = OrderIn(
            campaign_id=context.campaign_id,
            key=context.key(self.name),
            purpose=self.purpose,
            policy_id=policy_id,
            policy_version=policy_version,
            k=k,
            sampling=sampling,
            selection=_selection(self.purpose, context.recipe, counts),
        )
        return order.model_dump(mode="json")

    async def step(self, context: Context, stage: StageRow) -> bool:
        """Order once, then watch until every question is done or dead."""
        pool = context.peers.pool
        if stage.order_id is None:
            order_in = OrderIn.model_validate(stage.request)
            await _make_live(context.peers, order_in)
            order = await pool.create_order(order_in)
            stage.order_id = order.id
        else:
            order = await pool.order(stage.order_id)
        show_order(stage, order)
        if order.state is OrderState.OPEN and order.total:
            return False
        _check_finished(order, context.recipe)
        stage.tokens_sampled = (await pool.order_metrics(order.id)).tokens_sampled
        return True


async def _make_live(peers: Peers, order: OrderIn) -> None:
    """Raises: StageHaltedError when the teacher's own server is the one that fails: nobody here can bring it up."""
    try:
        await peers.generation.make_live(order.policy_id)
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


def _responses(purpose: OrderPurpose, recipe: Recipe) -> tuple[int, Any]:
    if purpose is OrderPurpose.TEACH:
        reference = recipe.teach.teacher.kind is TeacherKind.REFERENCE
        return 1 if reference else recipe.teach.k, recipe.teach.sampling
    section = recipe.probe if purpose is OrderPurpose.PROBE else recipe.eval
    return section.k, section.sampling


def _selection(purpose: OrderPurpose, recipe: Recipe, counts: PoolCounts) -> QuestionSelection:
    if purpose is OrderPurpose.EVAL:
        return QuestionSelection(split=Split.EVAL, seed=recipe.seed)
    if purpose is OrderPurpose.PROBE:
        return QuestionSelection(fraction=recipe.probe.fraction, seed=recipe.seed)
    return QuestionSelection(
        with_solution=recipe.teach.teacher.kind is TeacherKind.REFERENCE,
        limit=max(recipe.teach.minimum_questions, math.ceil(recipe.teach.fraction * counts.train)),
        seed=recipe.seed,
    )


def _check_finished(order: Order, recipe: Recipe) -> None:
    """Raises: StageHaltedError when the order ended without one group."""
    if not order.total:
        raise failed(f"Order '{order.key}' found no question: {_NO_QUESTION[order.purpose]}")
    if order.done:
        return
    teacher = recipe.teach.teacher
    if order.purpose is OrderPurpose.TEACH and teacher.kind is TeacherKind.OPENAI:
        raise failed(
            f"The teacher at {teacher.url} answered none of {order.total} questions: check that it is up and serves "
            f"'{teacher.model}'"
        )
    raise failed(
        f"Order '{order.key}' was {order.state} with none of its {order.total} questions sampled ({order.dead} given up): "
        "look for the reason in the sampling worker's log"
    )


_NO_QUESTION = {
    OrderPurpose.TEACH: "no training question fits the teacher; submit some with a 'solution', or use a teacher of kind 'openai'",
    OrderPurpose.PROBE: "submit training questions (split 'train')",
    OrderPurpose.EVAL: "submit held-out questions (split 'eval')",
    OrderPurpose.ROLLOUT: "submit training questions (split 'train')",
}
