"""Verdicts as they come: what a stream brought before it broke is kept, and only the rest is asked for again, as long as more comes."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing

from services.sampling.client import VERIFICATION, OverdueError, TransientError, VerificationClient
from services.sampling.service.patience import Patience, persist
from shared.contracts.questions import QuestionKind
from shared.contracts.reverification import CheckLimit
from shared.contracts.verdicts import Verdict, VerdictBatch, VerdictRequest

# How an assignment is given back whose verdicts did not all come in time.
TIMEOUT, TIMEOUT_MESSAGE = "timeout", "verification did not give all verdicts in time"


class Verdicts:
    """Verification. It may bring nothing of a batch for as long as its checks may take, and `grace_s` for those of others before them."""

    def __init__(self, verification: VerificationClient, grace_s: float, patience: Callable[[], Patience]) -> None:
        self._verification = verification
        self._grace_s = grace_s
        self._patience = patience

    async def of(self, requests: Sequence[VerdictRequest]) -> dict[str, Verdict]:
        """By the request's id; what has none is left out once `grace_s` and `work_s` of asking brought no verdict at all.

        Raises: HeadwaterError of the peer; TransientError when it stays away too long, which is not counted as asking.
        """
        verdicts: dict[str, Verdict] = {}
        if not requests:
            return verdicts
        patience = self._patience()
        limits = (await persist(self._verification.verifiers, patience)).limits
        asked = {request.id for request in requests}
        left_s = limit_s = self._grace_s + work_s(requests, limits)

        async def ask() -> None:
            nonlocal left_s
            missing = [request for request in requests if request.id not in verdicts]
            before, began_s = len(verdicts), time.monotonic()
            try:
                async with aclosing(self._verification.verdicts(VerdictBatch(items=tuple(missing)), left_s)) as items:
                    async for item in items:
                        if item.id in asked:
                            verdicts[item.id] = item.verdict
                            patience.succeeded()
            except OverdueError:
                if len(verdicts) == before:
                    return
            finally:
                left_s = limit_s if len(verdicts) > before else left_s - (time.monotonic() - began_s)
            if len(verdicts) < len(requests):
                raise TransientError(VERIFICATION, f"left out {len(requests) - len(verdicts)} responses")

        await persist(ask, patience)
        return verdicts


def work_s(requests: Sequence[VerdictRequest], limits: Mapping[QuestionKind, CheckLimit]) -> float:
    """Seconds that the checks of these responses take if each takes all its time: Σ deadline / at_once, and the longest of them to its end.

    A kind without a limit takes none.
    """
    own = [limits[request.kind] for request in requests if request.kind in limits]
    return max((one.deadline_s for one in own), default=0.0) + sum(one.deadline_s / one.at_once for one in own)
