"""Campaign settings, and reading of questions."""

from uuid import UUID

from services.pool.repository import campaigns, counters, questions
from shared.contracts.questions import PoolCounts, Question, QuestionState
from shared.contracts.recipe import PoolRecipe, RouterRecipe
from shared.db import Database
from shared.errors import NotFoundError


class Questions:
    """Reading of questions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put_campaign(self, campaign_id: UUID, name: str, router: RouterRecipe, pool: PoolRecipe) -> None:
        """Register a campaign, or change how its questions are compared and routed from now on."""
        async with self._database.transaction() as session:
            await campaigns.put(session, campaign_id, name, router, pool)

    async def get(self, question_id: UUID) -> Question:
        """One question. Raises: NotFoundError."""
        async with self._database.transaction() as session:
            row = (await questions.by_ids(session, [question_id])).get(question_id)
            if row is None:
                raise NotFoundError("question", question_id)
            return questions.to_contract(row)

    async def counts(self, campaign_id: UUID) -> PoolCounts:
        """The counters of a campaign. States, levels and `tiny` count train questions; `train` counts usable ones."""
        async with self._database.autocommit() as session:
            values = await counters.of_scope(session, campaign_id)
            if not values and not await campaigns.exists(session, campaign_id):
                raise NotFoundError("campaign", campaign_id)
        states = {str(state): values.get(f"state:{state}", 0) for state in QuestionState}
        levels = {level: values[f"level:{level}"] for level in range(1, 6) if values.get(f"level:{level}")}
        plain = {name: values.get(name, 0) for name in ("tiny", "train", "eval", "groups", "responses")}
        return PoolCounts(**states, **plain, levels=levels)
