"""A leased batch as Arrow: what the pool writes is what the trainer reads."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.arrow.lease import PackedLease, read, write
from shared.contracts.questions import Question, QuestionKind, QuestionState, Split
from shared.errors import HeadwaterError
from shared.packed import PackedGroup, PackedGroupIn
from tests.unit.shared.arrow.groups import GROUPS_IN

QUESTION = Question(
    id=UUID(int=2), campaign_id=UUID(int=3), text="1+1=?", answer="2", kind=QuestionKind.NUMERIC, split=Split.TRAIN,
    domain="arithmetic", state=QuestionState.HARD, tiny=False,
)  # fmt: skip


def stored(group: PackedGroupIn) -> PackedGroup:
    return PackedGroup(
        id=group.assignment_id,
        order_id=group.lease_token,
        question=QUESTION,
        policy_id=group.policy_id,
        policy_version=7,
        prompt_token_ids=group.prompt_token_ids,
        responses=group.responses,
        created_at=datetime(2025, 1, 1, 2, 3, 4, 5, tzinfo=UTC),
        tokens_expired=len(group.responses) == 1,
    )


@given(st.lists(GROUPS_IN, max_size=4), st.none() | st.uuids(), st.integers(0, 9))
def test_what_is_written_is_read(groups: list[PackedGroupIn], batch_id: UUID | None, waiting: int) -> None:
    lease = PackedLease(batch_id, [stored(group) for group in groups], waiting, dropped_stale=1)
    assert read(bytes(write(lease))).contract().model_dump_json() == lease.contract().model_dump_json()


@pytest.mark.parametrize("body", [b"", b"{}", bytes(write(PackedLease(None, [], 0)))[:-60]])
def test_an_answer_that_is_no_lease_is_said(body: bytes) -> None:
    with pytest.raises(HeadwaterError, match="the pool's answer cannot be read"):
        read(body)
