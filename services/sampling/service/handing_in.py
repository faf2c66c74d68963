"""What is finished goes to the pool until there is a receipt for each: handing in again does no harm."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar
from uuid import UUID

from services.sampling.client import POOL, TransientError
from services.sampling.service.patience import Patience, persist
from shared.contracts.orders import GroupBatchResult, GroupReceipt


class Finished(Protocol):
    """What the pool gives a receipt for."""

    @property
    def assignment_id(self) -> UUID:
        """Whose it is."""
        ...


F = TypeVar("F", bound=Finished)


async def handed_in(
    finished: Sequence[F], send: Callable[[Sequence[F]], Awaitable[GroupBatchResult]], patience: Patience
) -> tuple[GroupReceipt, ...]:
    """One receipt each. Raises: HeadwaterError of the pool; TransientError when it is away, or gives none, for too long."""
    receipts: dict[UUID, GroupReceipt] = {}

    async def ask() -> None:
        missing = [one for one in finished if one.assignment_id not in receipts]
        receipts.update({receipt.assignment_id: receipt for receipt in (await send(missing)).receipts})
        left_out = sum(one.assignment_id not in receipts for one in finished)
        if left_out:
            raise TransientError(POOL, f"gave no receipt for {left_out} of {len(missing)}")

    await persist(ask, patience)
    return tuple(receipts[one.assignment_id] for one in finished)
