"""Assignments of a re-verification: their stored responses are judged again, and nothing is sampled."""

from collections.abc import Callable, Sequence

from services.sampling.client import PoolClient, VerificationClient
from services.sampling.service.groups import verdict_request
from services.sampling.service.patience import Patience, persist
from services.sampling.service.verdicts import judged
from shared.contracts.orders import Assignment, GroupReceipt, GroupStatus
from shared.contracts.reverification import NewVerdicts, NewVerdictsBatch, StoredResponsesRequest


async def judge_again(
    pool: PoolClient, verification: VerificationClient, held: Sequence[Assignment], patience: Callable[[], Patience]
) -> tuple[GroupReceipt, ...]:
    """One receipt an assignment. Raises: HeadwaterError of a peer; TransientError when one stays away too long."""
    ids = tuple(assignment.id for assignment in held)
    stored = await persist(lambda: pool.stored_responses(StoredResponsesRequest(assignments=ids)), patience())
    texts = {item.assignment_id: item.texts for item in stored.items}
    requests = [
        verdict_request(assignment, position, text)
        for assignment in held
        for position, text in enumerate(texts.get(assignment.id, ()))
    ]
    verdicts = await judged(verification, requests, patience())
    new = [
        NewVerdicts(
            assignment_id=assignment.id,
            lease_token=assignment.lease_token,
            verdicts=tuple(verdicts[f"{assignment.id}/{at}"] for at in range(len(texts[assignment.id]))),
        )
        for assignment in held
        if texts.get(assignment.id)
    ]
    missing = [
        GroupReceipt(
            assignment_id=assignment.id,
            status=GroupStatus.REFUSED,
            message=f"Assignment {assignment.id} has no stored responses to judge.",
        )
        for assignment in held
        if not texts.get(assignment.id)
    ]
    if not new:
        return tuple(missing)
    batch = NewVerdictsBatch(items=tuple(new))
    return (*(await persist(lambda: pool.hand_in_verdicts(batch), patience())).receipts, *missing)
