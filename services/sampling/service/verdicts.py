"""Verdicts as they come: what a stream brought before it broke is kept, and only the rest is asked for again."""

from collections.abc import Sequence

from services.sampling.client import TransientError, VerificationClient
from services.sampling.service.patience import Patience, persist
from shared.contracts.verdicts import Verdict, VerdictBatch, VerdictRequest


async def judged(
    verification: VerificationClient, requests: Sequence[VerdictRequest], patience: Patience
) -> dict[str, Verdict]:
    """By the request's id, one for each. Raises: HeadwaterError of the peer; TransientError when none comes for too long."""
    verdicts: dict[str, Verdict] = {}

    async def ask() -> None:
        missing = [request for request in requests if request.id not in verdicts]
        async for item in verification.verdicts(VerdictBatch(items=tuple(missing))):
            verdicts[item.id] = item.verdict
            patience.succeeded()
        if len(verdicts) < len(requests):
            raise TransientError("verification", f"left out {len(requests) - len(verdicts)} responses")

    if requests:
        await persist(ask, patience)
    return verdicts
