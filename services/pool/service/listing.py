"""Lists: a page, and the cursor of what is behind it."""

from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

from services.pool.models import BatchRow, OrderRow, SnapshotRow
from services.pool.repository import campaigns, groups, orders, questions, texts
from services.pool.repository.listing import questions as question_lists
from services.pool.repository.listing import work
from services.pool.service import cursors
from services.pool.service.cursors import Place, RatePlace, TimePlace
from services.pool.service.orders import contracts as order_contracts
from services.pool.service.snapshots import contract as snapshot_contract
from shared.contracts.listing import (
    AssignmentListing,
    AssignmentPage,
    AssignmentProgress,
    BatchListing,
    BatchPage,
    BatchProgress,
    EventListing,
    EventPage,
    GroupListing,
    GroupPage,
    Listing,
    OrderListing,
    OrderPage,
    QuestionEvent,
    QuestionListing,
    QuestionPage,
    QuestionSort,
    SnapshotListing,
    SnapshotPage,
)
from shared.db import Database
from shared.errors import HeadwaterError, NotFoundError

INDEXED_AT_ONCE = 500
R = TypeVar("R")


class Lists:
    """Reading the pool, page by page."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def questions(self, listing: QuestionListing) -> QuestionPage:
        """Questions of a campaign. Raises: NotFoundError (campaign), HeadwaterError of a cursor, `text_is_by_position`."""
        if listing.text is not None and listing.sort is not QuestionSort.POSITION:
            raise HeadwaterError(
                "text_is_by_position", "Questions with a 'text' are listed by position; leave 'sort' out.", 422
            )
        owner = cursors.filter_hash(listing)
        by_rate = listing.sort is not QuestionSort.POSITION
        rate = cursors.decode(listing.after, owner, RatePlace) if by_rate else None
        place = None if by_rate else cursors.decode(listing.after, owner, Place)
        async with self._database.transaction() as session:
            if not await campaigns.exists(session, listing.campaign):
                raise NotFoundError("campaign", listing.campaign)
            if by_rate:
                rows = await question_lists.by_pass_rate(session, listing, rate)
            else:
                rows = await question_lists.by_position(session, listing, _number(place))
        following = _next(
            listing, owner, rows, lambda row: (row.pass_rate, row.position) if by_rate else (row.position,)
        )
        return QuestionPage.model_construct(items=tuple(questions.to_contract(row) for row in rows), next=following)

    async def events(self, listing: EventListing) -> EventPage:
        """Changes of state. Raises: HeadwaterError `no_filter`, or of a cursor."""
        _require(listing, ("campaign", "question"), "Events")
        owner = cursors.filter_hash(listing)
        after = _number(cursors.decode(listing.after, owner, Place))
        async with self._database.transaction() as session:
            rows = await question_lists.events(session, listing, after)
        items = tuple(
            QuestionEvent(
                id=row.id,
                question_id=row.question_id,
                from_pool=row.from_state,
                to_pool=row.to_state,
                reason=row.reason,
                order_id=row.order_id,
                at=row.at,
            )
            for row in rows
        )
        return EventPage(items=items, next=_next(listing, owner, rows, lambda row: (row.id,)))

    async def groups(self, listing: GroupListing) -> GroupPage:
        """Whole groups. Raises: HeadwaterError `no_filter`, or of a cursor."""
        _require(listing, ("order", "question", "policy"), "Groups")
        owner = cursors.filter_hash(listing)
        after = _number(cursors.decode(listing.after, owner, Place))
        async with self._database.transaction() as session:
            rows = await work.groups(session, listing, after)
            loaded = await groups.load(session, [row.id for row in rows])
        following = _next(listing, owner, rows, lambda row: (row.sequence,))
        return GroupPage.model_construct(items=tuple(group.contract() for group in loaded), next=following)

    async def orders(self, listing: OrderListing) -> OrderPage:
        """Orders of a campaign with their progress. Raises: HeadwaterError of a cursor."""
        owner = cursors.filter_hash(listing)
        after = cursors.decode(listing.after, owner, TimePlace)
        async with self._database.transaction() as session:
            rows = await work.orders(session, listing, after)
            items = tuple(await order_contracts(session, rows))
        return OrderPage(items=items, next=_next(listing, owner, rows, _time))

    async def assignments(self, order_id: UUID, listing: AssignmentListing) -> AssignmentPage:
        """What an order has left, or has given up. Raises: NotFoundError (order), HeadwaterError of a cursor."""
        owner = cursors.filter_hash(listing, order_id)
        after = _number(cursors.decode(listing.after, owner, Place))
        async with self._database.transaction() as session:
            if await orders.get(session, order_id) is None:
                raise NotFoundError("order", order_id)
            rows = await work.assignments(session, order_id, listing, after)
        items = tuple(AssignmentProgress.model_validate(row, from_attributes=True) for row in rows)
        return AssignmentPage(items=items, next=_next(listing, owner, rows, lambda row: (row.sequence,)))

    async def batches(self, listing: BatchListing) -> BatchPage:
        """Batches of a run or an order. Raises: HeadwaterError `no_filter`, or of a cursor."""
        _require(listing, ("run", "order"), "Batches")
        owner = cursors.filter_hash(listing)
        after = cursors.decode(listing.after, owner, TimePlace)
        async with self._database.transaction() as session:
            rows = await work.batches(session, listing, after)
        items = tuple(BatchProgress.model_validate(row, from_attributes=True) for row in rows)
        return BatchPage(items=items, next=_next(listing, owner, rows, _time))

    async def snapshots(self, listing: SnapshotListing) -> SnapshotPage:
        """Snapshots of a campaign. Raises: HeadwaterError of a cursor."""
        owner = cursors.filter_hash(listing)
        after = cursors.decode(listing.after, owner, TimePlace)
        async with self._database.transaction() as session:
            rows = await work.snapshots(session, listing, after)
        items = tuple(snapshot_contract(row) for row in rows)
        return SnapshotPage(items=items, next=_next(listing, owner, rows, _time))


async def index_texts(database: Database) -> None:
    """Bring the index of question texts up to date, in transactions that are short for the writers' sake."""
    async with database.transaction() as session:
        waiting = await texts.campaigns(session)
    for campaign_id in waiting:
        added = INDEXED_AT_ONCE
        while added == INDEXED_AT_ONCE:
            async with database.transaction() as session:
                added = await texts.add_next(session, campaign_id, INDEXED_AT_ONCE)


def _number(place: Place | None) -> int:
    return 0 if place is None else place.position


def _time(row: OrderRow | BatchRow | SnapshotRow) -> tuple[object, ...]:
    return (row.created_at, row.id)


def _next(listing: Listing, owner: str, rows: Sequence[R], place: Callable[[R], tuple[object, ...]]) -> str | None:
    """The cursor of what is behind a full page; None behind one that is not full."""
    return cursors.encode(owner, place(rows[-1])) if len(rows) == listing.limit else None


def _require(listing: Listing, names: tuple[str, ...], what: str) -> None:
    if all(getattr(listing, name) is None for name in names):
        quoted = [f"'{name}'" for name in names]
        choice = f"{', '.join(quoted[:-1])} or {quoted[-1]}"
        raise HeadwaterError("no_filter", f"{what} are listed by {choice}; name one of them.", 422)
