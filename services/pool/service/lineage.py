"""The pool's part of lineage: what was sampled for a question and what trains on it, and the questions of runs and snapshots."""

from uuid import UUID

from services.pool.models import VerdictRow
from services.pool.repository import difficulty, lineage, questions, reverification
from services.pool.service.difficulty import to_move
from shared.contracts.lineage import (
    GroupLineage,
    QuestionUses,
    SnapshotUse,
    TrainedOn,
    TrainedOnQuestion,
    TrainedOnRequest,
)
from shared.contracts.orders import OrderPurpose
from shared.contracts.questions import QuestionState
from shared.contracts.reverification import VerdictRecord
from shared.contracts.snapshots import SnapshotRecipe, SnapshotStatus
from shared.contracts.verdicts import VerdictOutcome
from shared.db import Database
from shared.errors import NotFoundError


class Lineage:
    """Reading lineage, both ways."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_question(self, question_id: UUID, after: int, limit: int) -> QuestionUses:
        """A question's uses, with `limit` groups behind `after`. Raises: NotFoundError."""
        async with self._database.transaction() as session:
            row = (await questions.by_ids(session, [question_id])).get(question_id)
            if row is None:
                raise NotFoundError("question", question_id)
            facts = await lineage.groups(session, question_id, after, limit)
            group_ids = [fact.id for fact in facts]
            verdicts = await lineage.verdicts(session, group_ids)
            history = await reverification.history(session, group_ids)
            batches = await lineage.batches(session, group_ids)
            moves = await difficulty.moves(session, question_id)
            snapshots = (await lineage.snapshots(session, [question_id]))[question_id]
            runs = (await lineage.runs(session, [question_id]))[question_id]
        return QuestionUses(
            question_id=question_id,
            campaign_id=row.campaign_id,
            state=QuestionState(row.state),
            groups=tuple(
                GroupLineage(
                    id=fact.id,
                    order_id=fact.order_id,
                    purpose=OrderPurpose(fact.purpose),
                    policy_id=fact.policy_id,
                    policy_version=fact.policy_version,
                    consumption=fact.consumption,
                    drop_reason=fact.drop_reason,
                    verdicts=tuple(verdicts[fact.id]),
                    history=tuple(_record(verdict) for verdict in history[fact.id]),
                    batch=batches.get(fact.id),
                    created_at=fact.created_at,
                )
                for fact in facts
            ),
            next=str(facts[-1].sequence) if len(facts) == limit else None,
            moves=tuple(to_move(event) for event in moves),
            snapshots=tuple(
                SnapshotUse(
                    snapshot_id=snapshot.id,
                    key=snapshot.key,
                    recipe=SnapshotRecipe(snapshot.request["recipe"]),
                    status=SnapshotStatus(snapshot.status),
                )
                for snapshot in snapshots
            ),
            runs=tuple(runs),
        )

    async def trained_on(self, request: TrainedOnRequest) -> TrainedOn:
        """The questions of some snapshots and of the batches of some runs."""
        async with self._database.transaction() as session:
            rows = await lineage.trained_on(session, request.snapshots, request.runs, request.after, request.limit)
        items = [TrainedOnQuestion(question_id=row.id, state=QuestionState(row.state)) for row in rows]
        return TrainedOn(items=tuple(items), next=str(rows[-1].id) if len(rows) == request.limit else None)


def _record(row: VerdictRow) -> VerdictRecord:
    return VerdictRecord(
        position=row.position,
        order_id=row.order_id,
        verifier=row.verifier,
        outcome=VerdictOutcome(row.outcome),
        unscored_reason=row.unscored_reason,
        answer=row.answer,
        at=row.at,
    )
