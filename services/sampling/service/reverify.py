"""Assignments of a re-verification: their stored responses are judged again, and nothing is sampled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.sampling.client import PoolClient
from services.sampling.service.groups import verdict_request
from services.sampling.service.handing_in import handed_in
from services.sampling.service.patience import Patience, persist
from services.sampling.service.verdicts import Verdicts
from shared.contracts.orders import Assignment, GroupBatchResult, GroupReceipt, GroupStatus
from shared.contracts.reverification import NewVerdicts, NewVerdictsBatch, StoredResponsesRequest


@dataclass(frozen=True, slots=True)
class JudgedAgain:
    """A receipt for each assignment, but for those that are `late`: not all of their verdicts came in time."""

    receipts: tuple[GroupReceipt, ...]
    late: tuple[Assignment, ...]


async def judge_again(
    pool: PoolClient, verdicts: Verdicts, held: Sequence[Assignment], patience: Callable[[], Patience]
) -> JudgedAgain:
    """Raises: HeadwaterError of a peer; TransientError when one stays away too long."""
    ids = tuple(assignment.id for assignment in held)
    stored = await persist(lambda: pool.stored_responses(StoredResponsesRequest(assignments=ids)), patience())
    texts = {item.assignment_id: item.texts for item in stored.items}
    requests = {
        assignment.id: [verdict_request(assignment, at, text) for at, text in enumerate(texts.get(assignment.id, ()))]
        for assignment in held
    }
    given = await verdicts.of([one for own in requests.values() for one in own])
    new: list[NewVerdicts] = []
    late: list[Assignment] = []
    empty: list[GroupReceipt] = []
    for assignment in held:
        own = [given[request.id] for request in requests[assignment.id] if request.id in given]
        if not requests[assignment.id]:
            empty.append(_nothing_stored(assignment))
        elif len(own) < len(requests[assignment.id]):
            late.append(assignment)
        else:
            new.append(
                NewVerdicts(assignment_id=assignment.id, lease_token=assignment.lease_token, verdicts=tuple(own))
            )

    async def send(finished: Sequence[NewVerdicts]) -> GroupBatchResult:
        return await pool.hand_in_verdicts(NewVerdictsBatch(items=tuple(finished)))

    receipts = await handed_in(new, send, patience()) if new else ()
    return JudgedAgain((*receipts, *empty), tuple(late))


def _nothing_stored(assignment: Assignment) -> GroupReceipt:
    return GroupReceipt(
        assignment_id=assignment.id,
        status=GroupStatus.REFUSED,
        message=f"Assignment {assignment.id} has no stored responses to judge.",
    )
