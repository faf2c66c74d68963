"""The stage that is one order for verifications of the policy's own answers, if the recipe wants them."""

from dataclasses import dataclass
from typing import Any

from services.cascade.models import StageRow
from services.cascade.service.progress import show_order
from services.cascade.service.sampling import check_finished, make_live
from services.cascade.service.stage import Context
from shared.contracts.campaigns import StageName
from shared.contracts.orders import OrderState
from shared.contracts.verdicts import VerdictOutcome
from shared.contracts.verifications import VerifyIn, Yields


@dataclass(frozen=True)
class Verifying:
    """Verifications of the answers that `order_of` sampled, by the policy of `policy_of` or the teacher of `teacher_of`."""

    name: StageName
    order_of: StageName
    policy_of: StageName
    teacher_of: StageName

    async def prepare(self, context: Context) -> dict[str, Any] | None:
        """The order; None when the recipe wants no verifications but those of templates."""
        section = context.recipe.verify
        if section.by == "nobody":
            return None
        policy_id, policy_version = context.policy(self.teacher_of if section.by == "teacher" else self.policy_of)
        request = VerifyIn(
            key=context.key(self.name),
            policy_id=policy_id,
            policy_version=policy_version,
            style=section.style,
            k=section.k,
            sampling=section.sampling,
            priority=context.recipe.priority,
        )
        return request.model_dump(mode="json")

    async def step(self, context: Context, stage: StageRow) -> bool:
        """Order once, then watch until every question is done or dead; shows how many verifications came to the truth."""
        pool = context.peers.pool
        if stage.order_id is None:
            request = VerifyIn.model_validate(stage.request)
            await make_live(context.peers, request.policy_id)
            source = context.stages[self.order_of].order_id
            assert source is not None, self.order_of
            order = await pool.verify(source, request)
            stage.order_id = order.id
        else:
            order = await pool.order(stage.order_id)
        show_order(stage, order)
        if order.state is OrderState.OPEN and order.total:
            return False
        check_finished(order, context.recipe)
        stage.tokens_sampled = (await pool.order_metrics(order.id)).tokens_sampled
        stage.detail = "; ".join(filter(None, (stage.detail, _in_words(await pool.yields(order.id)))))
        return True


def _in_words(yields: Yields) -> str:
    """How many of the verifications by each prompt came to the truth."""
    said = []
    for prompt in sorted({item.prompt for item in yields.items}):
        own = [item for item in yields.items if item.prompt == prompt]
        true = sum(item.n for item in own if item.outcome is VerdictOutcome.CORRECT)
        said.append(f"{true} of {sum(item.n for item in own)} {prompt.partition('@')[0]} verifications are true")
    return ", ".join(said)
