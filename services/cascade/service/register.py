"""register: the engine serves the recipe's model, the pool takes questions, base and teacher are policies."""

from dataclasses import dataclass
from typing import Any

from services.cascade.models import StageRow
from services.cascade.service.stage import Context, failed, waiting
from shared.contracts.campaigns import StageName
from shared.contracts.engine import EngineInfo
from shared.contracts.policies import PolicyIn, PolicyKind
from shared.contracts.recipe import TeacherKind


@dataclass(frozen=True)
class Registration:
    """The first stage. The base policy is version 0."""

    name: StageName

    async def prepare(self, context: Context) -> dict[str, Any]:
        """Base and teacher policy, as the engine and the recipe say."""
        engine = await context.peers.generation.engine()
        _check_engine(engine, context.recipe.model.base)
        base, teacher = _base_policy(context, engine), _teacher_policy(context)
        return {"base": base.model_dump(mode="json"), "teacher": teacher.model_dump(mode="json")}

    async def step(self, context: Context, stage: StageRow) -> bool:
        """Register both; the teacher's id is kept with the stage that uses it."""
        assert stage.request is not None
        generation = context.peers.generation
        base = await generation.register(PolicyIn.model_validate(stage.request["base"]))
        teacher = await generation.register(PolicyIn.model_validate(stage.request["teacher"]))
        stage.policy_id, stage.policy_version = base.id, base.version
        context.stages[StageName.TEACH].policy_id = teacher.id
        stage.done, stage.total, stage.unit = 2, 2, "policies"
        return True


def _check_engine(engine: EngineInfo, wanted: str) -> None:
    if engine.model_name != wanted:
        raise failed(
            f"The recipe's model.base is '{wanted}', but the engine serves '{engine.model_name}': "
            f"restart with headwater up --model {wanted}"
        )
    if engine.ready_replicas < 1:
        raise waiting(f"The engine is loading '{wanted}': 0 of {engine.replicas} replicas are ready.")


def _base_policy(context: Context, engine: EngineInfo) -> PolicyIn:
    return PolicyIn(
        campaign_id=context.campaign_id,
        name="base",
        kind=PolicyKind.BASE,
        uri=engine.uri,
        content_hash=engine.content_hash,
    )


def _teacher_policy(context: Context) -> PolicyIn:
    teacher = context.recipe.teach.teacher
    if teacher.kind is TeacherKind.REFERENCE:
        return PolicyIn(campaign_id=context.campaign_id, name="teacher", kind=PolicyKind.REFERENCE)
    return PolicyIn(
        campaign_id=context.campaign_id,
        name="teacher",
        kind=PolicyKind.EXTERNAL,
        uri=teacher.url or "",
        model=teacher.model,
        api_key_env=teacher.api_key_env,
    )
