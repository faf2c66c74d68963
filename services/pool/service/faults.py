"""What is wrong with a handed-in group, in words."""

import numpy as np

from services.pool.repository.groups import Claimed
from shared.contracts.generation import FinishReason
from shared.contracts.orders import OrderPurpose
from shared.packed import PackedGroupIn, PackedResponse, float32s


def fault(group: PackedGroupIn, assignment: Claimed) -> str | None:
    """Why a group cannot be the assignment's, None when it can."""
    if assignment.purpose == OrderPurpose.REVERIFY:
        return "the assignment judges a stored group again; hand in its verdicts"
    if group.policy_id != assignment.policy_id:
        return f"the assignment is for policy {assignment.policy_id}, not {group.policy_id}"
    if assignment.purpose != OrderPurpose.VERIFY and not _is_complete(group, assignment.k):
        return f"the order asks for {assignment.k} responses, not {len(group.responses)}"
    for position, response in enumerate(group.responses):
        if (reason := response_fault(response)) is not None:
            return f"response {position} has {reason}"
    return None


def _is_complete(group: PackedGroupIn, k: int) -> bool:
    """k responses; of the reference solutions that came with a question, as many of them as there are."""
    is_reference = all(response.finish_reason is FinishReason.REFERENCE for response in group.responses)
    return len(group.responses) == k or (is_reference and len(group.responses) < k)


def response_fault(response: PackedResponse) -> str | None:
    """What a response has that none can have, None when nothing."""
    if not len(response.token_ids) == len(response.logprobs) == len(response.token_ends):
        return "token_ids, logprobs and token_ends of different lengths"
    logprobs_T = float32s(response.logprobs)
    is_finite_T = np.isfinite(logprobs_T)
    if not is_finite_T.all():
        token = int(is_finite_T.argmin())
        return f"the log-probability {logprobs_T[token]} of token {token}, which is no finite number"
    ends = [segment.end for segment in response.verdict.segments]
    if ends and max(ends) > len(response.text):
        return "a segment behind the end of its text"
    return None
